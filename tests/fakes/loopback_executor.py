"""`python -m tests.fakes.loopback_executor`: an executor whose web_fetch reaches one port of this machine.

The product has no setting for that. LOOPBACK_PORT names the port.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backend.config import Settings
from backend.outside_addresses import OutsideAddresses
from executor import process as executor
from executor.web import Web
from executor.web.fetching import open_fetcher

PROGRAM = ("tests.fakes.loopback_executor",)


@asynccontextmanager
async def open_loopback_web(settings: Settings) -> AsyncIterator[Web]:
    async with open_fetcher(OutsideAddresses("127.0.0.0/8"), {int(os.environ["LOOPBACK_PORT"])}) as fetcher:
        yield Web(fetcher)


if __name__ == "__main__":
    executor.open_web = open_loopback_web
    executor.run([])
