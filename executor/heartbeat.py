"""The heartbeat of one executor: a key in Redis every half second, and a row in Postgres every five seconds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from backend.chat.keys import HEARTBEAT_EVERY
from backend.chat.leases.liveness import clock
from backend.chat.resources import Resources
from backend.chat.store import executors
from backend.errors import Unavailable
from backend.failpoints import reach
from backend.logs import Trouble, why_away
from backend.postgres_address import Address
from backend.redis_address import place_of_redis

ROW_EVERY = executors.BEAT_EVERY
"""Seconds between two beats in Postgres."""
logger = logging.getLogger(__name__)


class Heartbeat:
    """The beats of this process in both stores. While a store is unavailable, its beats are retried."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        settings = resources.settings
        self._no_redis = Trouble(
            logger, "Redis is unavailable", setting="REDIS_URL (or REDIS_HOST)", at=place_of_redis(settings.redis_dsn)
        )
        self._no_postgres = Trouble(
            logger,
            "PostgreSQL is unavailable",
            setting="DATABASE_URL (or DB_HOST)",
            at=Address.parse(settings.database_dsn).place,
        )

        self._wrong_clock = Trouble(logger, "the clock is wrong, no turns are taken", setting="MAX_CLOCK_SKEW")

    async def begin(self) -> None:
        """Sends the first beat to both stores. Call it before taking turns, so that others see this executor live."""
        await asyncio.gather(self._beat_in_redis(), self._beat_in_postgres())

    async def run(self) -> None:
        """Beats until cancelled."""
        await asyncio.gather(_every(HEARTBEAT_EVERY, self._beat_in_redis), _every(ROW_EVERY, self._beat_in_postgres))

    async def end(self) -> None:
        """Removes the heartbeat from both stores, if they are available, so that nobody waits until it lapses.

        Call it only when this executor has no turns left.
        """
        with contextlib.suppress(RedisError, Unavailable):
            await self._resources.liveness.forget(self._resources.me)
            async with self._resources.database.connection() as c:
                await executors.forget(c, self._resources.me)

    async def _beat_in_redis(self) -> None:
        reach("before_renew")
        try:
            await self._resources.liveness.beat(self._resources.me)
            self._no_redis.over()
        except RedisError as error:
            self._no_redis.met(why_away(error))

    def _log_skew(self) -> None:
        skew = self._resources.liveness.skew
        if skew.too_large:
            self._wrong_clock.met(f"{skew.seconds:+.0f} s against PostgreSQL")
        else:
            self._wrong_clock.over()

    async def _beat_in_postgres(self) -> None:
        began = clock()
        try:
            async with self._resources.database.connection() as c:
                with self._resources.liveness.skew.measured() as reading:
                    beat = await executors.beat(c, self._resources.me)
                    reading.clock = beat.clock
            self._resources.claiming.found |= beat.has_claims
            self._resources.liveness.slow_pulse.beat(began)
            self._no_postgres.over()
            self._log_skew()
        except Unavailable as error:
            self._no_postgres.met(why_away(error.__cause__ or error))


async def _every(seconds: float, beat: Callable[[], Awaitable[None]]) -> None:
    while True:
        began = time.monotonic()
        await beat()
        await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
