"""Ownership of tasks: whether an owner is dead, and the session's lock around an attempt."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from backend.chat.keys import HEARTBEAT_TTL
from backend.chat.leases.liveness import Verdict, clock
from backend.chat.leases.locks import Holder
from backend.chat.models import Task
from backend.chat.resources import Resources
from backend.chat.store import executors
from backend.ids import ExecutorId
from backend.logs import why_away

CHECK_EVERY = 0.1
"""Seconds between two checks of an owner's heartbeat."""
LOCK_CHECK_EVERY = CHECK_EVERY / 4
DEATH_LIMIT = HEARTBEAT_TTL + 1.0
"""Seconds within which a killed executor is found dead."""
LOCK_LIMIT = 5.0
"""Seconds to wait for a lock that a living executor holds."""
BEATS_AGAIN = 3 * executors.BEAT_EVERY
"""Seconds after an outage of Postgres within which every living executor has updated its row again."""
logger = logging.getLogger(__name__)


async def wait_for_death(resources: Resources, owner: ExecutorId) -> bool:
    """Waits up to DEATH_LIMIT seconds until an executor is dead. Returns False if it still lives then."""
    deadline = time.monotonic() + DEATH_LIMIT
    while True:
        if await is_dead(resources, owner):
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(CHECK_EVERY)


async def is_dead(resources: Resources, owner: ExecutorId) -> bool:
    """Returns whether an executor is dead, by its heartbeat in Redis.

    Its row in Postgres decides while Redis is, or just was, unavailable. Raises Unavailable if Postgres is, too.
    """
    try:
        verdict = await resources.liveness.verdict(owner)
    except RedisError:
        verdict = Verdict.UNKNOWN
    if verdict is not Verdict.UNKNOWN:
        return verdict is Verdict.DEAD
    if resources.liveness.slow_pulse.lapsed_since(clock() - BEATS_AGAIN):
        return False  # Postgres was unavailable, perhaps to every executor; those that live will update their rows soon
    async with resources.database.connection() as c:
        seen = await executors.last_seen(c, owner)
    return seen is None or seen > executors.DEAD_AFTER


@asynccontextmanager
async def session_lock(resources: Resources, task: Task) -> AsyncIterator[Holder]:
    """Holds the session's lock around an attempt. The lock only saves work: the attempt also runs without it."""
    holder = Holder(resources.me, task.id)
    try:
        await _lock(resources, task, holder)
    except RedisError as error:
        logger.warning("session lock was not taken", extra={"error": why_away(error)})
    try:
        yield holder
    finally:
        try:
            await resources.locks.release(task.session_id, holder)
        except RedisError as error:
            logger.warning("session lock was not released and will expire", extra={"error": why_away(error)})


async def _lock(resources: Resources, task: Task, holder: Holder) -> None:
    deadline = time.monotonic() + LOCK_LIMIT
    while (held := await resources.locks.acquire(task.session_id, holder)) is not None:
        same_task = held.task_id == task.id  # this claim has ended the earlier attempt that holds it
        if same_task or await resources.liveness.verdict(held.executor_id) is Verdict.DEAD:
            if await resources.locks.take_over(task.session_id, held, holder):
                return
        elif time.monotonic() >= deadline:
            logger.warning("session lock is held by a living executor", extra={"holder": str(held)})
            return
        await asyncio.sleep(LOCK_CHECK_EVERY)
