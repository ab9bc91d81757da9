"""The queue that the settings name, with the names and the liveness that production has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from redis.asyncio import Redis

from backend.chat.keys import BORN, HEARTBEAT_EVERY
from backend.chat.liveness import Liveness
from backend.chat.queues import open_turn_queue
from backend.chat.rabbit_turns import RabbitTurns
from backend.chat.redis_deliveries import QueueKeys
from backend.chat.redis_turns import open_redis_turns
from backend.chat.turns import TurnQueue
from backend.config import Settings
from backend.errors import ConfigError
from backend.ids import ExecutorId
from backend.redis import open_redis
from tests.integration.turn_queues import new_turn, soon
from tests.servers.rabbitmq import RabbitNode
from tests.servers.redis import RedisNode


@asynccontextmanager
async def _executor(settings: Settings, redis: Redis, name: str) -> AsyncIterator[TurnQueue]:
    """The queue of an executor that beats; leaving it is a death without a word."""

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


async def test_over_redis_a_dead_executors_turn_comes_to_a_living_one(private_redis: RedisNode) -> None:
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
                assert again.redelivered
                await again.ack()


async def test_over_rabbitmq_it_is_what_the_contract_names(
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


async def test_without_an_address_it_says_which_setting_is_missing(private_redis: RedisNode) -> None:
    settings = Settings(queue="rabbitmq", rabbitmq_url=None, rabbitmq_host=None)
    async with open_redis(private_redis.dsn, pool_size=2) as redis:
        with pytest.raises(ConfigError, match="RABBITMQ_URL"):
            async with open_turn_queue(settings, redis, Liveness(redis), ExecutorId("a")):
                pass


async def test_it_works_over_a_unix_socket_when_redis_has_one(redis_dsn: str) -> None:
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
