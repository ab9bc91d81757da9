"""Tests of the queue that the settings choose, with the names and the liveness of production."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from redis.asyncio import Redis

from backend.chat.keys import BORN, HEARTBEAT_EVERY
from backend.chat.leases.liveness import Liveness
from backend.chat.queue.open import open_turn_queue
from backend.chat.queue.rabbitmq import RabbitTurns
from backend.chat.queue.redis import open_redis_turns
from backend.chat.queue.redis_consumer import QueueKeys
from backend.chat.queue.turn_queue import TurnQueue
from backend.config import Settings
from backend.errors import ConfigError
from backend.ids import ExecutorId
from backend.redis import open_redis
from tests.integration.turn_queues import new_turn, soon
from tests.servers.rabbitmq import RabbitNode
from tests.servers.redis import RedisNode


@asynccontextmanager
async def _executor(settings: Settings, redis: Redis, name: str) -> AsyncIterator[TurnQueue]:
    """Opens the queue of an executor with a heartbeat. The executor dies at the end of the block."""

    async def beat() -> None:
        while True:
            await liveness.beat(ExecutorId(name))
            await asyncio.sleep(HEARTBEAT_EVERY)

    liveness = Liveness(redis)
    async with open_turn_queue(settings, redis, liveness, ExecutorId(name)) as queue:
        beating = asyncio.ensure_future(beat())
        try:
            yield queue
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating


async def test_over_redis_the_turn_of_a_dead_executor_is_delivered_to_another_one(private_redis: RedisNode) -> None:
    settings = Settings(queue="redis", redis_url=private_redis.dsn)
    turn = new_turn()
    async with open_redis(private_redis.dsn, pool_size=8) as redis:
        await redis.set(BORN, "1", ex=60)
        async with _executor(settings, redis, "b") as b:
            async with _executor(settings, redis, "a") as a, a.consume(1) as deliveries:
                await a.publish(turn)
                await soon(anext(deliveries))
            async with b.consume(1) as deliveries:
                again = await soon(anext(deliveries))
                assert again.turn == turn
                await again.ack()


async def test_over_rabbitmq_the_queue_has_the_names_of_the_contract(
    private_rabbitmq: RabbitNode, private_redis: RedisNode
) -> None:
    settings = Settings(queue="rabbitmq", rabbitmq_url=private_rabbitmq.dsn)
    async with (
        open_redis(private_redis.dsn, pool_size=2) as redis,
        open_turn_queue(settings, redis, Liveness(redis), ExecutorId("a")) as queue,
        queue.consume(1) as deliveries,
    ):
        assert isinstance(queue, RabbitTurns)
        turn = new_turn()
        await queue.publish(turn)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == turn
        await delivery.ack()
    queues = await private_rabbitmq.ctl("list_queues", "name", "type", "durable")
    assert "copilot_execution_queue\tquorum\ttrue" in queues
    exchanges = await private_rabbitmq.ctl("list_exchanges", "name", "type", "durable")
    assert "copilot_execution\tdirect\ttrue" in exchanges
    assert "copilot_cancel\tfanout\ttrue" in exchanges


async def test_without_an_address_the_missing_setting_is_named(private_redis: RedisNode) -> None:
    settings = Settings(queue="rabbitmq", rabbitmq_url=None, rabbitmq_host=None)
    async with open_redis(private_redis.dsn, pool_size=2) as redis:
        with pytest.raises(ConfigError, match="RABBITMQ_URL"):
            async with open_turn_queue(settings, redis, Liveness(redis), ExecutorId("a")):
                pass


async def test_the_queue_works_over_a_unix_socket_of_redis(redis_dsn: str) -> None:
    me, keys = ExecutorId("a"), QueueKeys("test:unix:turns", "test:unix:dead", "test:unix:cancel")

    async def nobody_is_dead(_: object) -> set[ExecutorId]:
        return set()

    async with (
        open_redis(redis_dsn, pool_size=8) as redis,
        open_redis_turns(redis_dsn, redis, me, nobody_is_dead, keys) as queue,
        queue.consume(1) as deliveries,
    ):
        turn = new_turn()
        await queue.publish(turn)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == turn
        await delivery.ack()
        await redis.delete(keys.turns)
