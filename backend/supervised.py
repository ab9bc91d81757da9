"""Background jobs that run as long as their process: a job that fails is logged and restarted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

PAUSE = 1.0  # seconds before a restart
logger = logging.getLogger(__name__)


def start_supervised(work: Callable[[], Awaitable[None]], name: str, *, pause: float = PAUSE) -> asyncio.Task[None]:
    """Runs `work` until the job is cancelled. Restarts it `pause` seconds after it fails or returns."""
    return asyncio.create_task(_supervise(work, name, pause), name=name)


async def _supervise(work: Callable[[], Awaitable[None]], name: str, pause: float) -> None:
    while True:
        try:
            await work()
        except Exception:  # the boundary of supervised jobs: the process needs them, whatever failed
            logger.exception("a supervised job failed and will be restarted", extra={"job": name})
        await asyncio.sleep(pause)
