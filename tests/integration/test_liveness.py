"""Who is dead: two looks, half a second apart, and never while Redis is young."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from backend.chat import liveness
from backend.chat.keys import BORN, BORN_TTL, executor_key
from backend.ids import ExecutorId, new_executor_id
from backend.redis import open_redis
from tests.servers.redis import RedisNode


@pytest.fixture
async def redis(private_redis: RedisNode) -> AsyncIterator[Redis]:
    async with open_redis(private_redis.dsn, pool_size=4) as redis:
        yield redis


async def _born(redis: Redis, seconds_ago: float) -> None:
    seconds, _ = await redis.time()
    await redis.set(BORN, str(seconds - seconds_ago), ex=BORN_TTL)


async def test_whoever_beats_is_alive_and_whoever_never_did_is_dead(redis: Redis) -> None:
    await _born(redis, seconds_ago=60)
    alive, dead = new_executor_id(), new_executor_id()
    await liveness.beat(redis, alive)
    assert await liveness.verdict(redis, alive) is False
    assert await liveness.verdict(redis, dead) is True
    assert await liveness.missing_executors(redis, [alive, dead]) == {dead}


async def test_a_heartbeat_runs_out_by_itself(redis: Redis) -> None:
    await _born(redis, seconds_ago=60)
    me = new_executor_id()
    await liveness.beat(redis, me)
    assert 0 < await redis.pttl(executor_key(me)) <= 1500


async def test_nobody_is_dead_while_redis_is_young(redis: Redis) -> None:
    me = new_executor_id()
    assert await liveness.verdict(redis, me) is None
    await liveness.beat(redis, new_executor_id())
    assert await liveness.verdict(redis, me) is None


async def test_the_birth_of_redis_is_set_once_and_refreshed_by_every_beat(redis: Redis) -> None:
    me = ExecutorId("me")
    await liveness.beat(redis, me)
    born = await redis.get(BORN)
    await redis.expire(BORN, 10)
    await liveness.beat(redis, me)
    assert await redis.get(BORN) == born
    assert await redis.ttl(BORN) > 10


async def test_who_leaves_in_order_is_gone_at_once(redis: Redis) -> None:
    await _born(redis, seconds_ago=60)
    me = new_executor_id()
    await liveness.beat(redis, me)
    await liveness.forget(redis, me)
    assert await liveness.missing_executors(redis, [me]) == {me}
