"""Who is dead: two looks, half a second apart, and never while Redis is young."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from backend.chat.keys import BORN, BORN_TTL, executor_key
from backend.chat.liveness import YOUNG, Liveness, clock
from backend.ids import ExecutorId, new_executor_id
from backend.redis import open_redis
from tests.servers.proxy import FaultProxy, Mode
from tests.servers.redis import RedisNode
from tests.speed import limit


@pytest.fixture
async def redis(private_redis: RedisNode) -> AsyncIterator[Redis]:
    async with open_redis(private_redis.dsn, pool_size=4) as redis:
        yield redis


@pytest.fixture
def liveness(redis: Redis) -> Liveness:
    return Liveness(redis)


async def _born(redis: Redis, seconds_ago: float) -> None:
    seconds, _ = await redis.time()
    await redis.set(BORN, str(seconds - seconds_ago), ex=BORN_TTL)


async def test_whoever_beats_is_alive_and_whoever_never_did_is_dead(redis: Redis, liveness: Liveness) -> None:
    await _born(redis, seconds_ago=60)
    alive, dead = new_executor_id(), new_executor_id()
    await liveness.beat(alive)
    await redis.pexpire(executor_key(alive), 60_000)  # as if it went on beating: what follows takes half a second
    assert await liveness.verdict(alive) is False
    assert await liveness.verdict(dead) is True
    assert await liveness.missing([alive, dead]) == {dead}


async def test_a_heartbeat_runs_out_by_itself(redis: Redis, liveness: Liveness) -> None:
    await _born(redis, seconds_ago=60)
    me, left = new_executor_id(), -2
    while left < 0:  # on a busy machine it may have run out before we look
        await liveness.beat(me)
        left = await redis.pttl(executor_key(me))
    assert left <= 1500


async def test_nobody_is_dead_while_redis_is_young(redis: Redis, liveness: Liveness) -> None:
    me = new_executor_id()
    assert await liveness.verdict(me) is None
    await liveness.beat(new_executor_id())
    assert await liveness.verdict(me) is None


async def test_the_birth_of_redis_is_set_once_and_refreshed_by_every_beat(redis: Redis, liveness: Liveness) -> None:
    me = ExecutorId("me")
    await liveness.beat(me)
    born = await redis.get(BORN)
    await redis.expire(BORN, 10)
    await liveness.beat(me)
    assert await redis.get(BORN) == born
    assert await redis.ttl(BORN) > 10


async def test_who_leaves_in_order_is_gone_at_once(redis: Redis, liveness: Liveness) -> None:
    await _born(redis, seconds_ago=60)
    me = new_executor_id()
    await liveness.beat(me)
    await liveness.forget(me)
    assert await liveness.missing([me]) == {me}


async def test_who_could_not_beat_itself_judges_nobody_until_others_had_time_to_beat(
    redis: Redis, private_redis: RedisNode
) -> None:
    """All keys have run out while Redis was away, those of the living too."""
    await _born(redis, seconds_ago=60)
    me, other = new_executor_id(), new_executor_id()
    async with FaultProxy.before(private_redis.dsn) as proxy, open_redis(proxy.dsn, pool_size=4) as through:
        liveness = Liveness(through)
        began = clock()
        await liveness.beat(me)
        assert await liveness.missing([other]) == {other}
        assert not liveness.pulse.lapsed_since(began)
        await proxy.switch(Mode.RESET)
        async with asyncio.timeout(limit(20)):
            while not liveness.pulse.late:
                with pytest.raises(RedisError):
                    await liveness.beat(me)
        await proxy.switch(Mode.PASS)
        await liveness.beat(me)
        assert not liveness.pulse.late
        assert liveness.pulse.lapsed_since(began)
        assert await liveness.missing([other]) is None
        async with asyncio.timeout(limit(YOUNG + 15)):
            while await liveness.missing([other]) is None:
                await asyncio.sleep(0.1)
                await liveness.beat(me)
        assert await liveness.missing([other]) == {other}
        assert not liveness.pulse.lapsed_since(clock())


async def test_a_beat_that_is_not_answered_is_given_up_soon(redis: Redis, private_redis: RedisNode) -> None:
    async with FaultProxy.before(private_redis.dsn) as proxy, open_redis(proxy.dsn, pool_size=4) as through:
        liveness = Liveness(through)
        await liveness.beat(new_executor_id())
        await proxy.switch(Mode.BLACKHOLE)
        began = clock()
        with pytest.raises(RedisError):
            await liveness.beat(new_executor_id())
        assert clock() - began < limit(4)
        await proxy.switch(Mode.PASS)
        await liveness.beat(new_executor_id())
