"""Which executors are alive, by their heartbeats in Redis.

A killed executor's key is gone 1.5 s after its last beat. All keys are gone when Redis was emptied, so nobody is dead
while Redis is young: `chat:born` says since when it has its data, set by whichever executor finds it missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from backend.chat.keys import BORN, BORN_TTL, HEARTBEAT_TTL, executor_key
from backend.ids import ExecutorId

LOOK_AGAIN_AFTER = 0.5
YOUNG = 3.0


async def beat(redis: Redis, executor_id: ExecutorId) -> None:
    """Keeps an executor alive for HEARTBEAT_TTL. Raises RedisError."""
    pipeline: Any = redis.pipeline(transaction=False)
    pipeline.set(executor_key(executor_id), b"1", px=int(HEARTBEAT_TTL * 1000))
    pipeline.expire(BORN, BORN_TTL)
    pipeline.time()
    _, known, now = await pipeline.execute()
    if not known:
        await redis.set(BORN, f"{now[0]}.{now[1]:06}", nx=True, ex=BORN_TTL)


async def forget(redis: Redis, executor_id: ExecutorId) -> None:
    """Ends an executor's life at once, for one that leaves with nothing in hand. Raises RedisError."""
    await redis.delete(executor_key(executor_id))


async def verdict(redis: Redis, executor_id: ExecutorId) -> bool | None:
    """True: dead; False: alive; None: Redis is too young to tell. Takes 0.5 s unless alive. Raises RedisError."""
    missing = await missing_executors(redis, [executor_id])
    if missing:
        await asyncio.sleep(LOOK_AGAIN_AFTER)
        missing = await missing_executors(redis, [executor_id])
    return None if missing is None else bool(missing)


async def missing_executors(redis: Redis, executor_ids: Sequence[ExecutorId]) -> set[ExecutorId] | None:
    """Those without a heartbeat, by one look. None while Redis is young. Raises RedisError."""
    pipeline: Any = redis.pipeline(transaction=False)
    for executor_id in executor_ids:
        pipeline.exists(executor_key(executor_id))
    pipeline.get(BORN)
    pipeline.time()
    *alive, born, now = await pipeline.execute()
    if born is None or now[0] + now[1] / 1e6 - float(born) < YOUNG:
        return None
    return {executor_id for executor_id, beats in zip(executor_ids, alive, strict=True) if not beats}
