"""The sign of life of one executor: a Redis key every half second, a row in Postgres every five."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from backend.chat import executors
from backend.chat.flows import House
from backend.chat.keys import HEARTBEAT_EVERY
from backend.chat.liveness import clock
from backend.errors import Unavailable
from backend.failpoints import reach
from backend.logs import Trouble, place_of, why_away

ROW_EVERY = executors.BEAT_EVERY
logger = logging.getLogger(__name__)


class Heartbeat:
    """While a store is away it goes on trying: the other one speaks for us."""

    def __init__(self, house: House) -> None:
        self._house = house
        settings = house.settings
        self._no_redis = Trouble(
            logger, "Redis is away", setting="REDIS_URL (or REDIS_HOST)", at=place_of(settings.redis_dsn)
        )
        self._no_postgres = Trouble(
            logger, "PostgreSQL is away", setting="DATABASE_URL (or DB_HOST)", at=place_of(settings.database_dsn)
        )

    async def begin(self) -> None:
        """The first beat of both: only who is seen to live may take turns."""
        await asyncio.gather(self._beat_in_redis(), self._beat_in_postgres())

    async def run(self) -> None:
        """Beats until cancelled."""
        await asyncio.gather(_every(HEARTBEAT_EVERY, self._beat_in_redis), _every(ROW_EVERY, self._beat_in_postgres))

    async def farewell(self) -> None:
        """The end of an executor that has nothing in hand: nobody needs to wait for its heartbeat to lapse."""
        with contextlib.suppress(RedisError, Unavailable):
            await self._house.liveness.forget(self._house.me)
            async with self._house.database.connection() as c:
                await executors.forget(c, self._house.me)

    async def _beat_in_redis(self) -> None:
        reach("before_renew")
        try:
            await self._house.liveness.beat(self._house.me)
            self._no_redis.over()
        except RedisError as error:
            self._no_redis.met(why_away(error))

    async def _beat_in_postgres(self) -> None:
        began = clock()
        try:
            async with self._house.database.connection() as c:
                await executors.beat(c, self._house.me)
            self._house.liveness.slow_pulse.beat(began)
            self._no_postgres.over()
        except Unavailable as error:
            self._no_postgres.met(why_away(error.__cause__ or error))


async def _every(seconds: float, beat: Callable[[], Awaitable[None]]) -> None:
    while True:
        began = time.monotonic()
        await beat()
        await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
