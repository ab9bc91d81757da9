"""Liveness of executors, by their heartbeats in Redis.

The key of a killed executor is gone 1.5 s after its last beat. Keys go for two other reasons too:
- Redis was emptied. So no executor is dead while Redis is young: `chat:born` has the time since which Redis has its
  data. A process that finds the key missing sets it.
- Redis was unavailable to every executor. So a process whose own beats failed judges no other one until the others have
  had time to beat again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from enum import Enum
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import TimeoutError as NoAnswer

from backend.chat.keys import BORN, BORN_TTL, HEARTBEAT_TTL, executor_key
from backend.chat.leases.clock_skew import ClockSkew
from backend.chat.store.executors import DEAD_AFTER
from backend.ids import ExecutorId
from backend.redis_cluster import beside

SECOND_CHECK_AFTER = 0.5
"""Seconds between the two checks that must both miss a heartbeat."""
YOUNG = 3.0
"""Seconds for which missing heartbeats are ignored after Redis was emptied, or after this process was late itself."""
BEAT_LIMIT = 1.0
"""Seconds for one beat. The next beat may find a connection that answers, so waiting longer does not help."""
BORN_EVERY = 5.0
"""Seconds between two refreshes of `chat:born`, each of which also measures the skew of Redis' clock."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Returns seconds of a clock that continues while this process, or its machine, is frozen."""
    return time.clock_gettime(_CLOCK)


class Verdict(Enum):
    """The state of an executor, as far as heartbeats tell."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


class OwnHeartbeat:
    """The beats of this process in one store. Each beat is valid for `ttl` seconds."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._beat_at = clock()
        self._back_at = 0.0

    def beat(self, began: float) -> None:
        """Notes that a beat has arrived, which began at the moment `began` of `clock`."""
        if self.late:
            self._back_at = clock()
        self._beat_at = began

    @property
    def late(self) -> bool:
        """Returns True if others may take this process for dead, because its last beat could have expired."""
        return clock() - self._beat_at > self._ttl

    def lapsed_since(self, moment: float) -> bool:
        """Returns True if this process is late, or was late since `moment` of `clock`."""
        return self.late or self._back_at >= moment


class Liveness:
    """The heartbeats that one process sees: its own, if it beats, and those of others.

    `pulse` holds its own beats in Redis, `slow_pulse` those in Postgres (`executors.beat`). `skew` compares
    this machine's clock with that of Postgres, `redis_skew` with that of Redis. Only `skew` has a limit, in seconds.
    """

    def __init__(self, redis: Redis, max_clock_skew: float = 0.0) -> None:
        self._redis = redis
        self.skew = ClockSkew(max_clock_skew)
        self.redis_skew = ClockSkew(0.0)
        self.pulse = OwnHeartbeat(HEARTBEAT_TTL)
        self.slow_pulse = OwnHeartbeat(DEAD_AFTER)
        self._next_born = 0.0

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
        """Makes an executor dead at once, for one that stops and holds no turn. Raises RedisError."""
        await self._redis.delete(self._key(me))

    async def verdict(self, executor_id: ExecutorId) -> Verdict:
        """Returns the state of an executor, after SECOND_CHECK_AFTER if its heartbeat is missing. Raises RedisError."""
        missing = await self.missing([executor_id])
        if missing:
            await asyncio.sleep(SECOND_CHECK_AFTER)
            missing = await self.missing([executor_id])
        if missing is None:
            return Verdict.UNKNOWN
        return Verdict.DEAD if missing else Verdict.ALIVE

    async def missing(self, executor_ids: Sequence[ExecutorId]) -> set[ExecutorId] | None:
        """Returns the executors without a heartbeat, by one check. Raises RedisError.

        Returns None while that proves nothing: Redis is young, or was unavailable to this process within the last YOUNG
        seconds.
        """
        pipeline: Any = self._redis.pipeline(transaction=False)
        for executor_id in executor_ids:
            pipeline.exists(self._key(executor_id))
        pipeline.get(BORN)
        pipeline.time()
        *alive, born, now = await pipeline.execute()
        age = YOUNG - 1 if born is None else now[0] + now[1] / 1e6 - float(born)
        if born is None:  # Redis was emptied, and the executor that found its own key missing may have failed then
            await self._redis.set(BORN, _stamp(now), nx=True, ex=BORN_TTL)
        elif age < 0:  # the clock of Redis was set back
            await self._redis.set(BORN, _stamp(now), xx=True, ex=BORN_TTL)
        if age < YOUNG or self.pulse.lapsed_since(clock() - YOUNG):
            return None
        return {executor_id for executor_id, beats in zip(executor_ids, alive, strict=True) if not beats}

    async def _beat(self, me: ExecutorId) -> None:
        """Refreshes the key by one command, unless the key was missing, as it is after Redis was emptied."""
        due, self._next_born = self._next_born, 0.0  # so that the beat after a failed one looks at `chat:born`
        before: Any = await self._redis.set(self._key(me), b"1", px=int(HEARTBEAT_TTL * 1000), get=True)
        if before is None or clock() >= due:
            await self._refresh_born()
            due = clock() + BORN_EVERY
        self._next_born = due

    def _key(self, executor_id: ExecutorId) -> str:
        return heartbeat_key(self._redis, executor_id)

    async def _refresh_born(self) -> None:
        pipeline: Any = self._redis.pipeline(transaction=False)
        pipeline.expire(BORN, BORN_TTL)
        pipeline.time()
        with self.redis_skew.measured() as reading:
            known, now = await pipeline.execute()
            reading.clock = now[0] + now[1] / 1e6
        if not known:
            await self._redis.set(BORN, _stamp(now), nx=True, ex=BORN_TTL)


def heartbeat_key(redis: Redis, executor_id: ExecutorId) -> str:
    """Returns the key of an executor's heartbeat. All heartbeats are on one server, together with `chat:born`."""
    return beside(redis, executor_key(executor_id), BORN)


def _stamp(now: tuple[int, int]) -> str:
    """Returns Redis' time as BORN holds it. `now` has seconds and microseconds."""
    return f"{now[0]}.{now[1]:06}"
