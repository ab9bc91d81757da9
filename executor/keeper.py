"""Keeps alive in Redis what running turns need, however long they are silent: the sessions' locks and the streams."""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError

from backend.chat.flows import House
from executor.turn import Turns

logger = logging.getLogger(__name__)


async def keep_leases(house: House, turns: Turns) -> None:
    """Runs until cancelled; refreshes three times within the shorter of the two times to live."""
    pause = min(house.settings.session_lock_ttl, house.settings.stream_ttl) / 3
    while True:
        await asyncio.sleep(pause)
        attempts = list(turns.running.values())
        if not attempts:
            continue
        try:
            await house.streams.refresh([attempt.stream for attempt in attempts])
            await house.locks.refresh([(attempt.session_id, attempt.holder) for attempt in attempts])
        except RedisError as error:
            logger.warning("leases not refreshed", extra={"why": type(error).__name__})
