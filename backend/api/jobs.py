"""Background jobs that continue after the request that started them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

_GRACE_S = 5.0
logger = logging.getLogger(__name__)


class Jobs:
    """The background jobs of the process. Their failures are logged, and shutdown waits for them."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None], *, name: str) -> None:
        """Runs `work` in the background, even if the caller is cancelled. A failure is logged."""
        job = asyncio.create_task(work, name=name)
        self._running.add(job)
        job.add_done_callback(self._on_end)

    def _on_end(self, job: asyncio.Task[None]) -> None:
        self._running.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            logger.error("job failed", extra={"job": job.get_name()}, exc_info=error)

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[Jobs]:
        """Waits up to 5 s for running jobs on exit, then cancels them."""
        try:
            yield self
        finally:
            if self._running:
                _, late = await asyncio.wait(self._running, timeout=_GRACE_S)
                for job in late:
                    job.cancel()
                await asyncio.gather(*late, return_exceptions=True)
