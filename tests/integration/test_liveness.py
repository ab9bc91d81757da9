"""Tests of the verdict that an executor is dead: two checks half a second apart, and none while Redis is young."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from unittest.mock import AsyncMock

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from backend.chat.keys import BORN, BORN_TTL, executor_key
from backend.chat.leases.liveness import YOUNG, Liveness, Verdict, clock
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


async def _set_birth(redis: Redis, seconds_ago: float) -> None:
    seconds, _ = await redis.time()
    await redis.set(BORN, str(seconds - seconds_ago), ex=BORN_TTL)


async def test_an_executor_with_a_heartbeat_is_alive_and_one_without_is_dead(redis: Redis, liveness: Liveness) -> None:
    await _set_birth(redis, seconds_ago=60)
    alive, dead = new_executor_id(), new_executor_id()
    await liveness.beat(alive)
    await redis.pexpire(executor_key(alive), 60_000)  # as if more heartbeats followed; a verdict takes half a second
    assert await liveness.verdict(alive) is Verdict.ALIVE
    assert await liveness.verdict(dead) is Verdict.DEAD
    assert await liveness.missing([alive, dead]) == {dead}


async def test_a_heartbeat_expires_by_itself(redis: Redis, liveness: Liveness) -> None:
    await _set_birth(redis, seconds_ago=60)
    me, left = new_executor_id(), -2
    while left < 0:  # on a busy machine it may expire before the check
        await liveness.beat(me)
        left = await redis.pttl(executor_key(me))
    assert left <= 1500


async def test_a_clock_of_redis_that_was_set_back_delays_the_verdict_by_seconds_only(
    redis: Redis, liveness: Liveness
) -> None:
    await _set_birth(redis, seconds_ago=-3600)  # written before the clock was set back by an hour
    dead = new_executor_id()
    assert await liveness.missing([dead]) is None
    seconds, _ = await redis.time()
    assert abs(float(await redis.get(BORN)) - seconds) <= limit(5)
    await _set_birth(redis, seconds_ago=YOUNG + 1)
    assert await liveness.missing([dead]) == {dead}


async def test_no_executor_is_judged_dead_shortly_after_the_start_of_redis(redis: Redis, liveness: Liveness) -> None:
    me = new_executor_id()
    assert await liveness.verdict(me) is Verdict.UNKNOWN
    await liveness.beat(new_executor_id())
    assert await liveness.verdict(me) is Verdict.UNKNOWN


async def test_the_birth_time_of_redis_is_set_once_and_refreshed_now_and_then(
    redis: Redis, liveness: Liveness, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = ExecutorId("me")
    monkeypatch.setattr("backend.chat.leases.liveness.BORN_EVERY", 0.0)
    await liveness.beat(me)
    born = await redis.get(BORN)
    await redis.expire(BORN, 10)
    await liveness.beat(me)
    assert await redis.get(BORN) == born
    assert await redis.ttl(BORN) > 10


async def test_a_redis_that_was_emptied_is_young_from_the_next_heartbeat_on(redis: Redis, liveness: Liveness) -> None:
    await _set_birth(redis, seconds_ago=60)
    await liveness.beat(ExecutorId("me"))
    await redis.flushall()
    await liveness.beat(ExecutorId("me"))
    assert await redis.get(BORN) is not None
    assert await liveness.missing([ExecutorId("other")]) is None


async def test_the_first_process_that_misses_the_birth_time_of_redis_sets_it(redis: Redis, liveness: Liveness) -> None:
    assert await liveness.missing([ExecutorId("other")]) is None
    seconds, _ = await redis.time()
    assert abs(float(await redis.get(BORN)) - seconds) <= limit(5)


async def test_a_heartbeat_after_a_failed_one_looks_for_the_birth_time_of_redis(
    redis: Redis, liveness: Liveness, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = ExecutorId("me")
    await liveness.beat(me)
    await redis.flushall()
    with monkeypatch.context() as patch:
        patch.setattr(liveness, "_refresh_born", AsyncMock(side_effect=ConnectionError))
        with pytest.raises(ConnectionError):
            await liveness.beat(me)
    assert await redis.get(BORN) is None
    await liveness.beat(me)
    assert await redis.get(BORN) is not None


async def test_an_executor_that_signs_off_is_missing_at_once(redis: Redis, liveness: Liveness) -> None:
    await _set_birth(redis, seconds_ago=60)
    me = new_executor_id()
    await liveness.beat(me)
    await liveness.forget(me)
    assert await liveness.missing([me]) == {me}


async def test_an_executor_with_a_late_heartbeat_judges_no_other_dead_until_all_had_time_to_beat(
    redis: Redis, private_redis: RedisNode
) -> None:
    """While Redis was unavailable, all keys expired, even those of living executors."""
    await _set_birth(redis, seconds_ago=60)
    me, other = new_executor_id(), new_executor_id()
    async with FaultProxy.before(private_redis.dsn) as proxy, open_redis(proxy.dsn, pool_size=4) as proxied:
        liveness = Liveness(proxied)
        started = clock()
        await liveness.beat(me)
        assert await liveness.missing([other]) == {other}
        assert not liveness.pulse.lapsed_since(started)
        await proxy.switch(Mode.RESET)
        async with asyncio.timeout(limit(20)):
            while not liveness.pulse.late:
                with pytest.raises(RedisError):
                    await liveness.beat(me)
        await proxy.switch(Mode.PASS)
        await liveness.beat(me)
        assert not liveness.pulse.late
        assert liveness.pulse.lapsed_since(started)
        assert await liveness.missing([other]) is None
        async with asyncio.timeout(limit(YOUNG + 15)):
            while await liveness.missing([other]) is None:
                await asyncio.sleep(0.1)
                await liveness.beat(me)
        assert await liveness.missing([other]) == {other}
        assert not liveness.pulse.lapsed_since(clock())


async def test_an_unanswered_heartbeat_times_out_soon(redis: Redis, private_redis: RedisNode) -> None:
    async with FaultProxy.before(private_redis.dsn) as proxy, open_redis(proxy.dsn, pool_size=4) as proxied:
        liveness = Liveness(proxied)
        await liveness.beat(new_executor_id())
        await proxy.switch(Mode.BLACKHOLE)
        started = clock()
        with pytest.raises(RedisError):
            await liveness.beat(new_executor_id())
        assert clock() - started < limit(4)
        await proxy.switch(Mode.PASS)
        await liveness.beat(new_executor_id())
