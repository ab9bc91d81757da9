"""The census of all tasks, for the metrics: one executor of all takes it, at most every CENSUS_EVERY seconds."""

from __future__ import annotations

import time
from dataclasses import replace

from redis.exceptions import RedisError

from backend.chat import keys
from backend.chat.resources import Resources
from backend.chat.store.operators.census import Census, RedisMemory, take_census
from backend.redis_cluster import info_of_servers

CENSUS_EVERY = 15.0
"""Seconds between two censuses."""
VALID_FOR = 60.0
"""Seconds after which a census is too old to be shown."""


class CensusTaker:
    """The taker of one executor. While Redis does not tell whose turn it is, every executor takes the census.

    That happens rarely, and the figures are the same; so dashboards and alerts use `max`.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._census: Census | None = None
        self._next = self._taken_at = float("-inf")

    @property
    def newest(self) -> Census | None:
        """The newest census, or None if another executor takes it, or it is older than VALID_FOR seconds."""
        return self._census if time.monotonic() - self._taken_at < VALID_FOR else None

    async def take_if_due(self) -> None:
        """Takes the census if it is due and no other executor does. Raises Unavailable."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + CENSUS_EVERY
        if not await self._is_mine():
            self._census = None
            return
        async with self._resources.database.connection() as c:
            census = await take_census(c)
        self._census = replace(census, redis=await self._memory())
        self._taken_at = time.monotonic()

    async def _is_mine(self) -> bool:
        redis, me = self._resources.redis, self._resources.me.encode()
        try:
            holder = await redis.set(keys.CENSUS, me, nx=True, ex=keys.CENSUS_TTL, get=True)
            if holder == me:
                await redis.expire(keys.CENSUS, keys.CENSUS_TTL)
        except RedisError:
            return True
        return holder in (None, me)

    async def _memory(self) -> RedisMemory | None:
        """Returns the memory of the fullest server. None if Redis is unavailable, or its ACL forbids INFO."""
        try:
            told = await info_of_servers(self._resources.redis, "memory")
        except (RedisError, OSError):
            return None
        found = [RedisMemory(int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))) for facts in told]
        return max(found, key=lambda memory: memory.used / (memory.limit or memory.used or 1), default=None)
