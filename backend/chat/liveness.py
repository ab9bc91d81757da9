"""Which executors are alive, by their heartbeats in Redis.

A killed executor's key is gone 1.5 s after its last beat. But all keys are gone when Redis was emptied, so nobody is
dead while Redis is young: `chat:born` says since when it has its data, set by whichever executor finds it missing. And
all keys run out when Redis was away from everybody, so who could not beat itself judges nobody until the others had the
time to beat again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import TimeoutError as NoAnswer

from backend.chat.executors import DEAD_AFTER
from backend.chat.keys import BORN, BORN_TTL, HEARTBEAT_TTL, executor_key
from backend.ids import ExecutorId

LOOK_AGAIN_AFTER = 0.5
YOUNG = 3.0
BEAT_LIMIT = 1.0
"""Seconds for one beat: the next one may find a connection that answers."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds that pass for others too: also while this process, or its machine, is frozen."""
    return time.clock_gettime(_CLOCK)


class Pulse:
    """The beats of this process in one store, where each is good for `ttl` seconds."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._beat_at = clock()
        self._back_at = 0.0

    def beat(self, began: float) -> None:
        """A beat that began at that moment of `clock` has arrived."""
        if self.late:
            self._back_at = clock()
        self._beat_at = began

    @property
    def late(self) -> bool:
        """Whether others may take this process for dead: its last beat could have run out."""
        return clock() - self._beat_at > self._ttl

    def lapsed_since(self, moment: float) -> bool:
        """Whether it was, or is, late since that moment of `clock`."""
        return self.late or self._back_at >= moment


class Liveness:
    """The heartbeats as one process sees them: its own, if it beats, and those of others.

    `pulse` are its beats in Redis, `slow_pulse` those in Postgres (`executors.beat`)."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.pulse = Pulse(HEARTBEAT_TTL)
        self.slow_pulse = Pulse(DEAD_AFTER)

    async def beat(self, me: ExecutorId) -> None:
        """Keeps an executor alive for HEARTBEAT_TTL. Raises RedisError."""
        began = clock()
        try:
            async with asyncio.timeout(BEAT_LIMIT):
                await self._beat(me)
        except TimeoutError:
            raise NoAnswer("a heartbeat was not answered") from None
        self.pulse.beat(began)

    async def forget(self, me: ExecutorId) -> None:
        """Ends an executor's life at once, for one that leaves with nothing in hand. Raises RedisError."""
        await self._redis.delete(executor_key(me))

    async def verdict(self, executor_id: ExecutorId) -> bool | None:
        """True: dead; False: alive; None: heartbeats cannot tell. Takes 0.5 s unless alive. Raises RedisError."""
        missing = await self.missing([executor_id])
        if missing:
            await asyncio.sleep(LOOK_AGAIN_AFTER)
            missing = await self.missing([executor_id])
        return None if missing is None else bool(missing)

    async def missing(self, executor_ids: Sequence[ExecutorId]) -> set[ExecutorId] | None:
        """Those without a heartbeat, by one look. None while that says nothing: Redis is young, or was away from us.

        Raises RedisError.
        """
        pipeline: Any = self._redis.pipeline(transaction=False)
        for executor_id in executor_ids:
            pipeline.exists(executor_key(executor_id))
        pipeline.get(BORN)
        pipeline.time()
        *alive, born, now = await pipeline.execute()
        if born is None or now[0] + now[1] / 1e6 - float(born) < YOUNG or self.pulse.lapsed_since(clock() - YOUNG):
            return None
        return {executor_id for executor_id, beats in zip(executor_ids, alive, strict=True) if not beats}

    async def _beat(self, me: ExecutorId) -> None:
        pipeline: Any = self._redis.pipeline(transaction=False)
        pipeline.set(executor_key(me), b"1", px=int(HEARTBEAT_TTL * 1000))
        pipeline.expire(BORN, BORN_TTL)
        pipeline.time()
        _, known, now = await pipeline.execute()
        if not known:
            await self._redis.set(BORN, f"{now[0]}.{now[1]:06}", nx=True, ex=BORN_TTL)
