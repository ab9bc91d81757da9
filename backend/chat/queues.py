"""Which turn queue it is: the one place that knows both adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from backend.chat.liveness import Liveness
from backend.chat.redis_turns import open_redis_turns
from backend.chat.turns import TurnQueue
from backend.config import Settings
from backend.ids import ExecutorId

MARGIN = 600.0


@asynccontextmanager
async def open_turn_queue(
    settings: Settings, redis: Redis, liveness: Liveness, me: ExecutorId
) -> AsyncIterator[TurnQueue]:
    """The queue that the settings name. `me` must beat (`liveness`) while it consumes.

    A broker that is away is no error: `healthy` tells. Raises ConfigError when its address is not set."""
    if settings.queue == "rabbitmq":
        # aio_pika takes 20 ms, which a process over Redis need not spend
        from backend.chat.rabbit_turns import open_rabbit_turns
        from backend.rabbitmq import Topology

        topology = Topology(consumer_timeout=settings.turn_timeout + MARGIN)
        async with open_rabbit_turns(settings.rabbitmq_dsn, topology) as over_rabbitmq:
            yield over_rabbitmq
        return

    async def dead(executor_ids: Sequence[ExecutorId]) -> set[ExecutorId]:
        """One look is enough here: it moves a copy of a turn, the task itself is claimed after a second look."""
        return await liveness.missing(executor_ids) or set()

    async with open_redis_turns(settings.redis_dsn, redis, me, dead) as over_redis:
        yield over_redis
