"""What is appended is in the stream exactly once, although Redis stops, lies, forgets or answers into the void."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from backend.chat.chunks import END, Data, TextDelta
from backend.chat.streams import Streams
from backend.chat.writing import Flusher, StreamWriter
from backend.errors import StreamGone, StreamUnavailable
from backend.ids import StreamId
from tests.integration.test_stream_writing import TTL, assert_dense, new_key, text_of, whole
from tests.servers.proxy import FaultProxy, Mode
from tests.servers.redis import RedisNode
from tests.speed import limit

SOON = limit(30)


def connect(port: int, *, retries: int = 0) -> Redis:
    """With `retries` the client repeats by itself what it had no answer to, as redis-py does when nobody says no."""
    return Redis(host="127.0.0.1", port=port, socket_timeout=limit(5), retry=Retry(NoBackoff(), retries))


@pytest.fixture
async def proxy(private_redis: RedisNode) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", private_redis.port) as proxy:
        yield proxy


@pytest.fixture
async def streams(private_redis: RedisNode) -> AsyncIterator[Streams]:
    async with Redis.from_url(private_redis.dsn) as redis:
        yield Streams(redis, TTL)


@asynccontextmanager
async def flushing(port: int, *, deadline: float = SOON, retries: int = 0) -> AsyncIterator[Flusher]:
    async with connect(port, retries=retries) as redis, Flusher(redis, ttl=TTL, deadline=deadline) as flusher:
        yield flusher


async def write_numbers(writer: StreamWriter, count: int, rng: random.Random) -> str:
    """Appends `0;1;2;…` with pauses; the whole text."""
    for i in range(count):
        await writer.append(TextDelta("t1", f"{i};") if rng.random() < 0.8 else Data("n", i))
        await asyncio.sleep(rng.choice((0, 0, 0.001, 0.005)))
    await writer.control(END)
    await asyncio.wait_for(writer.drain(), SOON)
    return writer.key


async def assert_numbers_once_in_order(streams: Streams, key: str, fence: int, count: int) -> None:
    entries = await whole(streams, key)
    assert_dense(entries, fence)
    found: list[int] = []
    for _, body in entries[:-1]:
        chunk = orjson.loads(body)
        found += [chunk["data"]] if "data" in chunk else map(int, chunk["delta"].rstrip(";").split(";"))
    assert found == list(range(count))
    assert entries[-1].body == END


# --- replies that are lost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 3], ids=["ours alone", "the client's too"])
async def test_no_chunk_comes_twice_when_replies_are_lost(proxy: FaultProxy, streams: Streams, retries: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng, count, keys = random.Random(seed), 30, [new_key() for _ in range(200)]

    async def nemesis() -> None:
        while True:
            await proxy.switch(rng.choice((Mode.LOSE_REPLIES, Mode.LOSE_REPLIES, Mode.RESET, Mode.PASS)))
            await asyncio.sleep(rng.uniform(0.005, 0.05))

    async with flushing(proxy.port, retries=retries) as flusher:
        trouble = asyncio.ensure_future(nemesis())
        writing = [write_numbers(flusher.writer(key, 1001, create=True), count, rng) for key in keys]
        jobs = asyncio.gather(*writing)
        await asyncio.wait({jobs, asyncio.ensure_future(asyncio.sleep(3))}, return_when=asyncio.FIRST_COMPLETED)
        trouble.cancel()
        await asyncio.wait({trouble})
        await proxy.switch(Mode.PASS)
        await asyncio.wait_for(jobs, SOON)
    assert proxy.lost > 0
    for key in keys:
        await assert_numbers_once_in_order(streams, key, 1001, count)


async def test_the_very_first_append_counts_once_when_its_reply_is_lost(proxy: FaultProxy, streams: Streams) -> None:
    keys = [new_key() for _ in range(300)]
    async with flushing(proxy.port) as flusher:
        async with proxy.failing(Mode.LOSE_REPLIES):
            writers = [flusher.writer(key, 1001, create=True) for key in keys]
            for writer in writers:
                await writer.append(TextDelta("t1", "a"))
            async with asyncio.timeout(SOON):
                while proxy.lost < 2:
                    await asyncio.sleep(0.02)
        for writer in writers:
            await writer.append(TextDelta("t1", "b"))
            await asyncio.wait_for(writer.drain(), SOON)
    for key in keys:
        entries = await whole(streams, key)
        assert_dense(entries, 1001)
        assert text_of(entries) == "ab"


async def test_a_retry_sends_the_same_batch_and_new_chunks_wait_behind_it(proxy: FaultProxy, streams: Streams) -> None:
    key = new_key()
    async with flushing(proxy.port) as flusher:
        writer = flusher.writer(key, 1001, create=True)
        async with proxy.failing(Mode.RESET):
            await writer.append(TextDelta("t1", "a"))
            async with asyncio.timeout(SOON):
                while proxy.accepted < 2:
                    await asyncio.sleep(0.02)
            await writer.append(TextDelta("t1", "b"))
        await asyncio.wait_for(writer.drain(), SOON)
    assert [orjson.loads(body)["delta"] for _, body in await whole(streams, key)] == ["a", "b"]


# --- waiting and giving up ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.DOWN, Mode.RESET, Mode.BLACKHOLE, Mode.LOSE_REPLIES])
async def test_past_the_deadline_the_attempt_is_told(proxy: FaultProxy, streams: Streams, mode: Mode) -> None:
    async with flushing(proxy.port, deadline=limit(1)) as flusher:
        async with proxy.failing(mode):
            writer = flusher.writer(new_key(), 1001, create=True)
            await writer.append(TextDelta("t1", "a"))
            with pytest.raises(StreamUnavailable):
                await asyncio.wait_for(writer.drain(), SOON)
        with pytest.raises(StreamUnavailable):
            await writer.append(TextDelta("t1", "b"))
        key = new_key()
        heir = flusher.writer(key, 1002, create=True)
        await heir.append(TextDelta("t1", "c"))
        await asyncio.wait_for(heir.drain(), SOON)
    assert text_of(await whole(streams, key)) == "c"


async def test_between_two_tries_there_is_a_pause(proxy: FaultProxy) -> None:
    async with flushing(proxy.port, deadline=limit(1)) as flusher, proxy.failing(Mode.RESET):
        writer = flusher.writer(new_key(), 1001, create=True)
        await writer.append(TextDelta("t1", "a"))
        with pytest.raises(StreamUnavailable):
            await asyncio.wait_for(writer.drain(), SOON)
        assert 2 <= proxy.accepted <= limit(20)


async def test_a_cancelled_wait_harms_nobody(proxy: FaultProxy, streams: Streams) -> None:
    keys = [new_key(), new_key()]
    async with flushing(proxy.port) as flusher:
        writer, other = (flusher.writer(key, 1001, create=True) for key in keys)
        async with proxy.failing(Mode.BLACKHOLE):
            for w in (writer, other):
                await w.append(TextDelta("t1", "a"))
            drains = [asyncio.ensure_future(writer.drain()) for _ in range(3)]
            await asyncio.sleep(0)
            for drain in drains[:2]:
                drain.cancel()
            await asyncio.wait(drains[:2])
        await asyncio.wait_for(asyncio.gather(drains[2], other.drain()), SOON)
        await writer.append(TextDelta("t1", "b"))
        await asyncio.wait_for(writer.drain(), SOON)
    assert [text_of(await whole(streams, key)) for key in keys] == ["ab", "a"]


# --- a Redis in trouble -------------------------------------------------------------------------------------------


async def test_a_redis_that_froze_for_three_seconds_costs_nothing_but_time(private_redis: RedisNode) -> None:
    rng, keys = random.Random(1), [new_key() for _ in range(30)]
    async with flushing(private_redis.port) as flusher, connect(private_redis.port) as redis:
        jobs = asyncio.gather(*(write_numbers(flusher.writer(key, 1001, create=True), 200, rng) for key in keys))
        await asyncio.sleep(0.05)
        private_redis.pause()
        await asyncio.sleep(3)
        private_redis.resume()
        await asyncio.wait_for(jobs, SOON)
        for key in keys:
            await assert_numbers_once_in_order(Streams(redis, TTL), key, 1001, 200)


async def test_a_redis_that_was_killed_and_came_back_goes_on_where_it_was(private_redis: RedisNode) -> None:
    rng, keys = random.Random(2), [new_key() for _ in range(30)]
    async with flushing(private_redis.port) as flusher, connect(private_redis.port) as redis:
        jobs = asyncio.gather(*(write_numbers(flusher.writer(key, 1001, create=True), 200, rng) for key in keys))
        await asyncio.sleep(0.05)
        await private_redis.kill()
        await private_redis.start()
        await asyncio.wait_for(jobs, SOON)
        for key in keys:
            await assert_numbers_once_in_order(Streams(redis, TTL), key, 1001, 200)


async def test_a_redis_that_was_emptied_is_noticed_by_every_writer(private_redis: RedisNode) -> None:
    async with flushing(private_redis.port) as flusher, connect(private_redis.port) as redis:
        writers = [flusher.writer(new_key(), 1001, create=True) for _ in range(20)]
        for writer in writers:
            await writer.append(TextDelta("t1", "a"))
        await asyncio.gather(*(writer.drain() for writer in writers))
        await redis.flushall()
        for writer in writers:
            await writer.append(TextDelta("t1", "b"))
        outcomes = await asyncio.gather(*(writer.drain() for writer in writers), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {StreamGone}
        assert await redis.dbsize() == 0


async def _fill_up(redis: Redis) -> None:
    await redis.config_set("maxmemory", 1)


async def _empty(redis: Redis) -> None:
    await redis.config_set("maxmemory", 0)


async def _demote(redis: Redis) -> None:
    await redis.execute_command("REPLICAOF", "127.0.0.1", 1)


async def _promote(redis: Redis) -> None:
    await redis.execute_command("REPLICAOF", "NO", "ONE")


async def _block(redis: Redis) -> None:
    await redis.config_set("busy-reply-threshold", 1)
    asyncio.ensure_future(redis.eval("while true do end", 0)).add_done_callback(lambda job: job.exception())
    async with asyncio.timeout(SOON):
        while True:
            try:
                await redis.ping()
            except RedisError:
                return


async def _unblock(redis: Redis) -> None:
    await redis.execute_command("SCRIPT", "KILL")


@pytest.mark.parametrize(
    ("hurt", "heal"),
    [
        pytest.param(_fill_up, _empty, id="out of memory"),
        pytest.param(_demote, _promote, id="read-only"),
        pytest.param(_block, _unblock, id="busy"),
    ],
)
async def test_what_redis_refuses_for_now_is_appended_later(private_redis: RedisNode, hurt, heal) -> None:  # type: ignore[no-untyped-def]
    key = new_key()
    async with flushing(private_redis.port) as flusher, connect(private_redis.port) as redis:
        writer = flusher.writer(key, 1001, create=True)
        await writer.append(TextDelta("t1", "a"))
        await writer.drain()
        await hurt(redis)
        await writer.append(TextDelta("t1", "b"))
        waiting = asyncio.ensure_future(writer.drain())
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        await writer.append(TextDelta("t1", "c"))
        await heal(redis)
        assert await asyncio.wait_for(waiting, SOON) == StreamId(1001, 3)
        assert text_of(await whole(Streams(redis, TTL), key)) == "abc"


async def test_a_refusal_with_no_end_is_said_and_nothing_was_written(private_redis: RedisNode) -> None:
    key = new_key()
    async with flushing(private_redis.port, deadline=limit(1)) as flusher, connect(private_redis.port) as redis:
        await _fill_up(redis)
        writer = flusher.writer(key, 1001, create=True)
        await writer.append(TextDelta("t1", "a"))
        with pytest.raises(StreamUnavailable, match="OutOfMemory"):
            await asyncio.wait_for(writer.drain(), SOON)
        assert await redis.exists(key) == 0
