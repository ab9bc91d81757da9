"""The sign of life of one executor: a Redis key every half second, a row in Postgres every five."""

from __future__ import annotations

import asyncio
import logging
import time

from redis.exceptions import RedisError

from backend.chat import executors, liveness
from backend.chat.flows import House
from backend.chat.keys import HEARTBEAT_EVERY, HEARTBEAT_TTL
from backend.errors import Unavailable

ROW_EVERY = 5.0
logger = logging.getLogger(__name__)


class Heartbeat:
    """`run` beats until cancelled. While a store is away it goes on trying: the other one speaks for us."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._last = time.monotonic()

    @property
    def late(self) -> bool:
        """Whether the others may have taken us for dead: the key could have run out since the last beat."""
        return time.monotonic() - self._last > HEARTBEAT_TTL

    async def run(self) -> None:
        await asyncio.gather(self._beat_in_redis(), self._beat_in_postgres())

    async def _beat_in_redis(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await liveness.beat(self._house.redis, self._house.me)
                self._last = began
            except RedisError as error:
                logger.warning("heartbeat not written to redis", extra={"why": type(error).__name__})
            await asyncio.sleep(max(0.0, HEARTBEAT_EVERY - (time.monotonic() - began)))

    async def _beat_in_postgres(self) -> None:
        while True:
            try:
                async with self._house.database.connection() as c:
                    await executors.beat(c, self._house.me)
            except Unavailable as error:
                logger.warning("heartbeat not written to postgres", extra={"why": str(error)})
            await asyncio.sleep(ROW_EVERY)
