"""Whether an owner lives, and the session's lock around an attempt."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from backend.chat import executors
from backend.chat.flows import House
from backend.chat.keys import HEARTBEAT_TTL
from backend.chat.liveness import clock
from backend.chat.locks import Holder
from backend.chat.models import Task
from backend.ids import ExecutorId

LOOK_EVERY = 0.1
ALIVE_AFTER = HEARTBEAT_TTL + 1.0
LOCK_PATIENCE = 5.0
BEATS_AGAIN = 3 * executors.BEAT_EVERY
logger = logging.getLogger(__name__)


async def dies(house: House, owner: ExecutorId) -> bool:
    """Whether an executor is dead, or turns out to be within the time in which a killed one's heartbeat lapses."""
    deadline = time.monotonic() + ALIVE_AFTER
    while True:
        if await is_dead(house, owner):
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(LOOK_EVERY)


async def is_dead(house: House, owner: ExecutorId) -> bool:
    """By its heartbeat in Redis; while that cannot tell (Redis is or was away), by its row in Postgres."""
    try:
        verdict = await house.liveness.verdict(owner)
    except RedisError:
        verdict = None
    if verdict is not None:
        return verdict
    if house.liveness.slow_pulse.lapsed_since(clock() - BEATS_AGAIN):
        return False  # Postgres was away from us, so perhaps from everybody: whoever lives beats there soon
    async with house.database.connection() as c:
        seen = await executors.last_seen(c, owner)
    return seen is None or seen > executors.DEAD_AFTER


@asynccontextmanager
async def session_lock(house: House, task: Task) -> AsyncIterator[Holder]:
    """Holds the session's lock around an attempt. It is a courtesy between executors: never a reason not to run."""
    holder = Holder(house.me, task.id)
    try:
        await _lock(house, task, holder)
    except RedisError as error:
        logger.warning("session lock not taken", extra={"why": type(error).__name__})
    try:
        yield holder
    finally:
        try:
            await house.locks.release(task.session_id, holder)
        except RedisError as error:
            logger.warning("session lock left to run out", extra={"why": type(error).__name__})


async def _lock(house: House, task: Task, holder: Holder) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE
    while (held := await house.locks.acquire(task.session_id, holder)) is not None:
        same_task = held.task_id == task.id  # whoever held it for this task has lost it by our claim
        if same_task or await house.liveness.verdict(held.executor_id):
            if await house.locks.take_over(task.session_id, held, holder):
                return
        elif time.monotonic() >= deadline:
            logger.warning("session lock is held by a living executor", extra={"holder": str(held)})
            return
        await asyncio.sleep(LOOK_EVERY / 4)
