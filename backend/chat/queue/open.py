"""The choice of the turn queue. This is the only module that knows both adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from backend.chat.leases.liveness import Liveness
from backend.chat.queue.redis import open_redis_turns
from backend.chat.queue.turn_queue import TurnQueue
from backend.config import Settings
from backend.ids import ExecutorId

if TYPE_CHECKING:
    from backend.rabbitmq import Topology

CONSUMER_TIMEOUT_MARGIN = 600.0
"""Seconds beyond the longest turn after which RabbitMQ may take an unsettled turn back."""


def topology_of(settings: Settings) -> Topology:
    """Returns the queues and exchanges that the processes with these settings declare in RabbitMQ."""
    from backend.rabbitmq import Topology  # imported late, see below

    return Topology(consumer_timeout=settings.turn_timeout + CONSUMER_TIMEOUT_MARGIN)


@asynccontextmanager
async def open_turn_queue(
    settings: Settings, redis: Redis, liveness: Liveness, me: ExecutorId
) -> AsyncIterator[TurnQueue]:
    """Opens the queue that the settings name. The executor `me` must send heartbeats while it consumes.

    An unavailable broker is no error, but the queue is then not `healthy`. Raises ConfigError if the address of the
    broker is not set.
    """
    if settings.queue == "rabbitmq":
        # imported here because aio_pika takes 20 ms, which a process with the Redis queue can save
        from backend.chat.queue.rabbitmq import open_rabbit_turns

        async with open_rabbit_turns(settings.rabbitmq_dsn, topology_of(settings)) as over_rabbitmq:
            yield over_rabbitmq
        return

    async def dead(executor_ids: Sequence[ExecutorId]) -> set[ExecutorId]:
        """Returns the executors that one check finds dead. That is enough to move a copy of a turn; a claim checks
        twice.
        """
        return await liveness.missing(executor_ids) or set()

    async with open_redis_turns(settings.redis_dsn, redis, me, dead) as over_redis:
        yield over_redis
