"""Makes a running store lose its data, its connections, or what was declared in it. The product must restore these."""

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
from tests.servers.redis import redis_client
from tests.speed import limit

Loss = Callable[[Stores], Awaitable[None]]
_WITHIN = limit(30)


async def empty_redis(stores: Stores) -> None:
    async with redis_client(stores.redis.dsn) as redis:
        await redis.flushall()


async def close_redis_connections(stores: Stores) -> None:
    for node in stores.redis.nodes:
        async with Redis.from_url(node.dsn) as redis:
            await redis.client_kill_filter(_type="normal")
            await redis.client_kill_filter(_type="pubsub")


async def close_postgres_connections(stores: Stores) -> None:
    c = await asyncpg.connect(stores.postgres.dsn, timeout=limit(20))
    await c.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    await c.close()


async def close_rabbitmq_connections(stores: Stores) -> None:
    await stores.rabbitmq.close_all_connections()


async def delete_queue(stores: Stores) -> None:
    """Deletes the queue of turns and its messages."""
    connection = await aio_pika.connect(stores.rabbitmq.dsn)
    async with connection, connection.channel() as channel:
        await (await channel.get_queue(Topology().queue)).delete(if_unused=False, if_empty=False)


async def delete_exchange(stores: Stores) -> None:
    """Deletes the exchange of turns and its binding."""
    connection = await aio_pika.connect(stores.rabbitmq.dsn)
    async with connection, connection.channel() as channel:
        await channel.exchange_delete(Topology().execution)


async def delete_binding(stores: Stores) -> None:
    """Deletes the binding between the exchange of turns and their queue."""
    connection = await aio_pika.connect(stores.rabbitmq.dsn)
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue(Topology().queue)
        await queue.unbind(Topology().execution, Topology().routing_key)


@asynccontextmanager
async def unreadable_queue(broker: RabbitNode, queue: str = Topology().queue) -> AsyncIterator[None]:
    """Forbids the user to consume from that queue while the block lasts, and nothing else."""
    try:
        await broker.ctl("set_permissions", "-p", "/", "guest", ".*", ".*", f"^(?!{queue}$).*")
        await broker.close_all_connections()
        yield
    finally:
        await broker.ctl("set_permissions", "-p", "/", "guest", ".*", ".*", ".*")


async def until_consumers_are(stores: Stores, wanted: int) -> None:
    """Waits until `wanted` channels consume turns, one of each executor. Counts channels, because an executor that held
    turns when it lost its connection has one more consumer on its channel for each of their slots."""
    deadline = time.monotonic() + _WITHIN
    channels = (
        "length(lists:usort([proplists:get_value(channel_pid, C) || "
        'C <- rabbit_amqqueue:consumers_all(<<"/">>), '
        f'element(4, proplists:get_value(queue_name, C)) =:= <<"{Topology().queue}">>]))'
    )
    while (taking := int(await stores.rabbitmq.eval(channels))) != wanted:
        assert time.monotonic() < deadline, taking
        await asyncio.sleep(0.1)
