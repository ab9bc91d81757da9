"""Tests that an appended chunk is stored exactly once although Redis stops, loses data, or loses its replies."""

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

from backend.chat.protocol.chunks import END, Data, TextDelta
from backend.chat.streams.streams import Streams
from backend.chat.streams.writer import Flusher, StreamWriter
from backend.errors import StreamGone, StreamUnavailable
from backend.ids import StreamId
from tests.integration.test_stream_writing import TTL, assert_dense, new_key, text_of, whole
from tests.servers.proxy import FaultProxy, Mode
from tests.servers.redis import RedisNode
from tests.speed import limit

SOON = limit(30)


def connect(port: int, *, retries: int = 0) -> Redis:
    """Opens a client. With `retries` it repeats unanswered commands itself, as redis-py does by default."""
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
    """Appends `0;1;2;…` with pauses, ends the stream and drains. Returns the key of the stream."""
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


# --- lost replies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 3], ids=["retries of the writer", "retries of the client as well"])
async def test_no_chunk_is_stored_twice_when_replies_are_lost(
    proxy: FaultProxy, streams: Streams, retries: int
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng, count, keys = random.Random(seed), 30, [new_key() for _ in range(200)]

    async def inject_faults() -> None:
        while True:
            await proxy.switch(rng.choice((Mode.LOSE_REPLIES, Mode.LOSE_REPLIES, Mode.RESET, Mode.PASS)))
            await asyncio.sleep(rng.uniform(0.005, 0.05))

    async with flushing(proxy.port, retries=retries) as flusher:
        faults = asyncio.ensure_future(inject_faults())
        writing = [write_numbers(flusher.writer(key, 1001, create=True), count, rng) for key in keys]
        jobs = asyncio.gather(*writing)
        await asyncio.wait({jobs, asyncio.ensure_future(asyncio.sleep(3))}, return_when=asyncio.FIRST_COMPLETED)
        faults.cancel()
        await asyncio.wait({faults})
        await proxy.switch(Mode.PASS)
        await asyncio.wait_for(jobs, SOON)
    assert proxy.lost > 0
    for key in keys:
        await assert_numbers_once_in_order(streams, key, 1001, count)


async def test_the_first_append_is_stored_once_when_its_reply_is_lost(proxy: FaultProxy, streams: Streams) -> None:
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


# --- deadlines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.DOWN, Mode.RESET, Mode.BLACKHOLE, Mode.LOSE_REPLIES])
async def test_a_writer_raises_unavailable_after_the_deadline(proxy: FaultProxy, streams: Streams, mode: Mode) -> None:
    async with flushing(proxy.port, deadline=limit(1)) as flusher:
        async with proxy.failing(mode):
            writer = flusher.writer(new_key(), 1001, create=True)
            await writer.append(TextDelta("t1", "a"))
            with pytest.raises(StreamUnavailable):
                await asyncio.wait_for(writer.drain(), SOON)
        with pytest.raises(StreamUnavailable):
            await writer.append(TextDelta("t1", "b"))
        key = new_key()
        successor = flusher.writer(key, 1002, create=True)
        await successor.append(TextDelta("t1", "c"))
        await asyncio.wait_for(successor.drain(), SOON)
    assert text_of(await whole(streams, key)) == "c"


async def test_retries_have_pauses_between_them(proxy: FaultProxy) -> None:
    async with flushing(proxy.port, deadline=limit(1)) as flusher, proxy.failing(Mode.RESET):
        writer = flusher.writer(new_key(), 1001, create=True)
        await writer.append(TextDelta("t1", "a"))
        with pytest.raises(StreamUnavailable):
            await asyncio.wait_for(writer.drain(), SOON)
        assert 2 <= proxy.accepted <= limit(20)


async def test_a_cancelled_drain_affects_no_other(proxy: FaultProxy, streams: Streams) -> None:
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


# --- outages of Redis ---------------------------------------------------------------------------------------------


async def test_writers_survive_a_redis_that_freezes_for_three_seconds(private_redis: RedisNode) -> None:
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


async def test_writers_continue_after_redis_was_killed_and_restarted(private_redis: RedisNode) -> None:
    rng, keys = random.Random(2), [new_key() for _ in range(30)]
    async with flushing(private_redis.port) as flusher, connect(private_redis.port) as redis:
        jobs = asyncio.gather(*(write_numbers(flusher.writer(key, 1001, create=True), 200, rng) for key in keys))
        await asyncio.sleep(0.05)
        await private_redis.kill()
        await private_redis.start()
        await asyncio.wait_for(jobs, SOON)
        for key in keys:
            await assert_numbers_once_in_order(Streams(redis, TTL), key, 1001, 200)


async def test_every_writer_notices_that_redis_was_emptied(private_redis: RedisNode) -> None:
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


async def _free(redis: Redis) -> None:
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
    ("fault", "repair"),
    [
        pytest.param(_fill_up, _free, id="out of memory"),
        pytest.param(_demote, _promote, id="read-only"),
        pytest.param(_block, _unblock, id="busy"),
    ],
)
async def test_writes_that_redis_refuses_temporarily_are_retried(private_redis: RedisNode, fault, repair) -> None:  # type: ignore[no-untyped-def]
    key = new_key()
    async with flushing(private_redis.port) as flusher, connect(private_redis.port) as redis:
        writer = flusher.writer(key, 1001, create=True)
        await writer.append(TextDelta("t1", "a"))
        await writer.drain()
        await fault(redis)
        await writer.append(TextDelta("t1", "b"))
        waiting = asyncio.ensure_future(writer.drain())
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        await writer.append(TextDelta("t1", "c"))
        await repair(redis)
        assert await asyncio.wait_for(waiting, SOON) == StreamId(1001, 3)
        assert text_of(await whole(Streams(redis, TTL), key)) == "abc"


async def test_a_permanent_refusal_raises_unavailable_and_writes_nothing(private_redis: RedisNode) -> None:
    key = new_key()
    async with flushing(private_redis.port, deadline=limit(1)) as flusher, connect(private_redis.port) as redis:
        await _fill_up(redis)
        writer = flusher.writer(key, 1001, create=True)
        await writer.append(TextDelta("t1", "a"))
        with pytest.raises(StreamUnavailable, match="OutOfMemory"):
            await asyncio.wait_for(writer.drain(), SOON)
        assert await redis.exists(key) == 0
