"""Tests of the servers that other tests use: they work, and survive being killed."""

from __future__ import annotations

import aio_pika
import asyncpg
import redis.asyncio

from tests.servers.postgres import PostgresNode
from tests.servers.rabbitmq import RabbitNode
from tests.servers.redis import RedisNode
from tests.speed import limit


async def _fetch(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=limit(20))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_the_database_for_one_test_is_empty(empty_postgres_dsn: str) -> None:
    assert await _fetch(empty_postgres_dsn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


async def test_the_shared_redis_answers(redis_dsn: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_dsn) as client:
        assert await client.ping()


async def test_the_shared_rabbitmq_delivers_messages(rabbitmq_dsn: str) -> None:
    async with await aio_pika.connect(rabbitmq_dsn, timeout=limit(20)) as connection:
        channel = await connection.channel(on_return_raises=True)
        queue = await channel.declare_queue(exclusive=True)
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), queue.name)
        message = await queue.get(timeout=limit(20))
        assert message.body == b"hello"
        await message.ack()


async def test_a_killed_redis_keeps_acknowledged_writes(private_redis: RedisNode) -> None:
    async with redis.asyncio.Redis.from_url(private_redis.dsn) as client:
        await client.set("kept", "yes")
    await private_redis.kill()
    await private_redis.start()
    async with redis.asyncio.Redis.from_url(private_redis.dsn) as client:
        assert await client.get("kept") == b"yes"


async def test_a_killed_postgres_keeps_committed_rows(private_postgres: PostgresNode) -> None:
    await _fetch(private_postgres.dsn, "CREATE TABLE kept AS SELECT 1 AS one")
    await private_postgres.kill()
    await private_postgres.start()
    assert await _fetch(private_postgres.dsn, "SELECT one FROM kept") == 1


async def test_a_killed_rabbitmq_restarts_with_its_durable_queues(private_rabbitmq: RabbitNode) -> None:
    async with await aio_pika.connect(private_rabbitmq.dsn, timeout=limit(20)) as connection:
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True)
    await private_rabbitmq.eval("mnesia:sync_log()")  # a broker writes its definitions to disk with a delay
    await private_rabbitmq.kill()
    await private_rabbitmq.start()
    assert "kept" in await private_rabbitmq.ctl("list_queues", "name")
    async with await aio_pika.connect(private_rabbitmq.dsn, timeout=limit(20)) as connection:
        await (await connection.channel()).queue_delete("kept")
