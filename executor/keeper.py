"""Keeps alive in Redis what running turns need, however long they are silent: the sessions' locks and the streams."""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError

from backend.chat.flows import House
from backend.errors import Unavailable
from executor.turn import Turns

AT_ONCE = 50
"""A thousand at once would keep the loop busy for longer than a chunk may be late."""
logger = logging.getLogger(__name__)


async def keep_leases(house: House, turns: Turns) -> None:
    """Runs until cancelled; refreshes three times within the shorter of the two times to live."""
    pause = min(house.settings.session_lock_ttl, house.settings.stream_ttl) / 3
    while True:
        await asyncio.sleep(pause)
        attempts = list(turns.running.values())
        for start in range(0, len(attempts), AT_ONCE):
            part = attempts[start : start + AT_ONCE]
            try:
                await house.streams.refresh([attempt.stream for attempt in part])
                await house.locks.refresh([(attempt.session_id, attempt.holder) for attempt in part])
                for attempt in part:
                    if attempt not in turns:  # it ended meanwhile, and the refresh took its lock again
                        await house.locks.release(attempt.session_id, attempt.holder)
            except (RedisError, Unavailable) as error:
                logger.warning("leases not refreshed", extra={"why": type(error).__name__})
                break
