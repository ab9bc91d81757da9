"""What a store can lose while it stands: its data, its connections, what was declared in it. We make it again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aio_pika
import asyncpg
from redis.asyncio import Redis

from backend.rabbitmq import Topology
from tests.faults.rig.supervisor import Stores
from tests.servers.rabbitmq import RabbitNode
from tests.speed import limit

Loss = Callable[[Stores], Awaitable[None]]
_WITHIN = limit(30)


async def empty_redis(stores: Stores) -> None:
    async with Redis.from_url(stores.redis.dsn) as redis:
        await redis.flushall()


async def close_redis_connections(stores: Stores) -> None:
    async with Redis.from_url(stores.redis.dsn) as redis:
        await redis.client_kill_filter(_type="normal")
        await redis.client_kill_filter(_type="pubsub")


async def close_postgres_connections(stores: Stores) -> None:
    c = await asyncpg.connect(stores.postgres.dsn, timeout=limit(20))
    await c.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    await c.close()


async def close_rabbitmq_connections(stores: Stores) -> None:
    await stores.rabbitmq.ctl("close_all_connections", "test")


async def delete_queue(stores: Stores) -> None:
    """The queue of turns, with what is in it."""
    connection = await aio_pika.connect(stores.rabbitmq.dsn)
    async with connection, connection.channel() as channel:
        await (await channel.get_queue(Topology().queue)).delete(if_unused=False, if_empty=False)


async def delete_exchange(stores: Stores) -> None:
    """The exchange of turns, and its binding with it."""
    connection = await aio_pika.connect(stores.rabbitmq.dsn)
    async with connection, connection.channel() as channel:
        await channel.exchange_delete(Topology().execution)


async def delete_binding(stores: Stores) -> None:
    """Between the exchange of turns and their queue."""
    connection = await aio_pika.connect(stores.rabbitmq.dsn)
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue(Topology().queue)
        await queue.unbind(Topology().execution, Topology().routing_key)


@asynccontextmanager
async def unreadable_queue(broker: RabbitNode, queue: str = Topology().queue) -> AsyncIterator[None]:
    """Nobody may take from that queue; whatever else can be done may be done."""
    try:
        await broker.ctl("set_permissions", "-p", "/", "guest", ".*", ".*", f"^(?!{queue}$).*")
        await broker.ctl("close_all_connections", "the permissions are new")
        yield
    finally:
        await broker.ctl("set_permissions", "-p", "/", "guest", ".*", ".*", ".*")


async def consumers_are(stores: Stores, wanted: int) -> None:
    """So many channels take turns, one of each executor. (One that had turns in hand when it lost its connection has a
    consumer more on its channel for each of their slots.)"""
    deadline = time.monotonic() + _WITHIN
    while len(taking := await _consumers(stores)) != wanted:
        assert time.monotonic() < deadline, taking
        await asyncio.sleep(0.1)


async def _consumers(stores: Stores) -> set[str]:
    told = await stores.rabbitmq.ctl("list_consumers", "queue_name", "channel_pid")
    return {line for line in told.splitlines() if line.startswith(Topology().queue)}
