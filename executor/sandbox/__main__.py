"""`python -m executor.sandbox SOCKET`: runs commands in sandboxes until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from backend.logs import configure_logs
from executor.sandbox.server import PROBE_EVERY, serving


async def serve(socket: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(socket) as server:
        logging.getLogger("executor.sandbox").info("sandbox has started", extra={"socket": str(socket)})
        while not stop.is_set():
            try:
                async with asyncio.timeout(PROBE_EVERY):
                    await stop.wait()
            except TimeoutError:
                await server.probe()


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m executor.sandbox SOCKET")
    configure_logs(os.environ.get("LOG_LEVEL", "INFO").upper(), os.environ.get("LOG_FORMAT", "json"))
    asyncio.run(serve(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
