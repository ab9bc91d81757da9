"""Work that outlives the request that began it, and not the process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

_GRACE = 5.0
logger = logging.getLogger(__name__)


class Jobs:
    """Jobs that are kept, watched and, at the end of the process, waited for."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None], *, name: str) -> None:
        """Runs `work` whatever becomes of the caller; a failure is logged."""
        job = asyncio.create_task(work, name=name)
        self._running.add(job)
        job.add_done_callback(self._ended)

    def _ended(self, job: asyncio.Task[None]) -> None:
        self._running.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            logger.error("job failed", extra={"job": job.get_name()}, exc_info=error)

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[Jobs]:
        """Leaving waits 5 s for what runs, then cancels it."""
        try:
            yield self
        finally:
            if self._running:
                _, late = await asyncio.wait(self._running, timeout=_GRACE)
                for job in late:
                    job.cancel()
                await asyncio.gather(*late, return_exceptions=True)
