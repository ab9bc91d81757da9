"""Background jobs that run as long as their process, restarted whenever they fail; and the end of other jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

PAUSE = 1.0  # seconds before a restart
END_LIMIT = 10.0
"""Seconds that a cancelled job has to end."""
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


async def end_job(job: asyncio.Future[Any], *, limit: float = END_LIMIT) -> bool:
    """Cancels a job and waits up to `limit` seconds for its end. Returns False, and logs it, if the job goes on.

    A job need not end at its cancel: it may wait for something in a `finally`, or swallow the cancel.
    """
    job.cancel()
    ended = bool((await asyncio.wait({job}, timeout=limit))[0])
    if not ended:
        logger.error("a cancelled job has not ended", extra={"job": repr(job)[:200]})
    return ended
