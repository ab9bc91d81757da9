"""Side job that extends the Redis leases of running turns: the session locks and the streams."""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError

from backend.chat.resources import Resources
from backend.errors import Unavailable
from backend.logs import why_away
from executor.metrics import ExecutorMetrics
from executor.turns.runner import TurnRunner

BATCH = 50
"""Attempts refreshed together; a thousand of them would block the event loop for too long."""
logger = logging.getLogger(__name__)


async def refresh_leases(resources: Resources, runner: TurnRunner, metrics: ExecutorMetrics) -> None:
    """Refreshes three times within the shorter of the two lease times, until cancelled."""
    pause = min(resources.settings.session_lock_ttl, resources.settings.stream_ttl) / 3
    while True:
        await asyncio.sleep(pause)
        attempts, taken = list(runner.running.values()), 0
        for start in range(0, len(attempts), BATCH):
            part = attempts[start : start + BATCH]
            try:
                streams = [attempt.stream for attempt in part]
                await resources.streams.refresh(streams)
                taken += await resources.streams.memory_of(streams)
                await resources.locks.refresh([(attempt.session_id, attempt.holder) for attempt in part])
                for attempt in part:
                    if attempt not in runner:  # it ended in the meantime, and the refresh took its lock again
                        await resources.locks.release(attempt.session_id, attempt.holder)
            except (RedisError, Unavailable) as error:
                logger.warning("leases were not refreshed", extra={"error": why_away(error)})
                break
        metrics.note_stream_bytes(taken)
