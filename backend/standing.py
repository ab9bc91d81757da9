"""Jobs that stand as long as their process: a fault in one is logged, and it begins again. None ends unnoticed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

PAUSE = 1.0
logger = logging.getLogger(__name__)


def start_standing(work: Callable[[], Awaitable[None]], name: str, *, pause: float = PAUSE) -> asyncio.Task[None]:
    """Runs `work` until the job is cancelled, from its beginning again, after a pause, when it fails or returns."""
    return asyncio.create_task(_stand(work, name, pause), name=name)


async def _stand(work: Callable[[], Awaitable[None]], name: str, pause: float) -> None:
    while True:
        try:
            await work()
        except Exception:  # the boundary of standing jobs: whatever it was, the process needs the job
            logger.exception("a standing job failed and begins again", extra={"job": name})
        await asyncio.sleep(pause)
