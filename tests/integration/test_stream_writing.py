"""Tests that each chunk enters a stream exactly once and in order despite faults of Redis and the network."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from backend.chat.keys import stream_key
from backend.chat.protocol.chunks import END, Chunk, Data, Start, TextDelta, TextEnd, TextStart, encode
from backend.chat.scripts import Appended, Batch, append
from backend.chat.streams.streams import Entry, Streams
from backend.chat.streams.writer import BUFFER_CAP, Flusher
from backend.errors import Fenced, StreamGone, StreamUnavailable, Unavailable
from backend.ids import BEGINNING, SessionId, StreamId, TaskId
from tests.speed import limit

TTL = 60


def new_key() -> str:
    return stream_key(SessionId(str(uuid.uuid4())), TaskId(str(uuid.uuid4())))


async def whole(streams: Streams, key: str) -> list[Entry]:
    return [entry async for page in streams.pages(key, BEGINNING) for entry in page]


def text_of(entries: list[Entry]) -> str:
    return "".join(orjson.loads(body).get("delta", "") for _, body in entries if body[:1] == b"{")


def assert_dense(entries: list[Entry], fence: int) -> None:
    assert [entry.id for entry in entries] == [StreamId(fence, seq) for seq in range(1, len(entries) + 1)]


@pytest.fixture
async def redis(redis_dsn: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_dsn) as client:
        yield client


@pytest.fixture
def streams(redis: Redis) -> Streams:
    return Streams(redis, TTL)


@pytest.fixture
async def flusher(redis: Redis) -> AsyncIterator[Flusher]:
    async with Flusher(redis, ttl=TTL) as flusher:
        yield flusher


# --- appending ----------------------------------------------------------------------------------------------------


async def test_chunks_are_stored_in_order_under_consecutive_ids(flusher: Flusher, streams: Streams) -> None:
    key, chunks = new_key(), [Start("m1"), TextStart("t1"), TextDelta("t1", "hello"), TextEnd("t1")]
    writer = flusher.writer(key, 1001, create=True)
    for chunk in chunks:
        await writer.append(chunk)
        await writer.drain()
    await writer.control(END)
    assert await writer.drain() == writer.last == StreamId(1001, 5)
    entries = await whole(streams, key)
    assert_dense(entries, 1001)
    assert [entry.body for entry in entries] == [*map(encode, chunks), END]


async def test_waiting_deltas_are_merged(flusher: Flusher, streams: Streams) -> None:
    key = new_key()
    writer = flusher.writer(key, 1001, create=True)
    for i in range(1000):
        await writer.append(TextDelta("t1", f"{i};"))
    await writer.drain()
    entries = await whole(streams, key)
    assert len(entries) < 10
    assert text_of(entries) == "".join(f"{i};" for i in range(1000))


async def test_a_chunk_is_flushed_without_a_drain(flusher: Flusher, streams: Streams) -> None:
    key = new_key()
    await flusher.writer(key, 1001, create=True).append(TextDelta("t1", "now"))
    async with asyncio.timeout(limit(20)):
        while not await streams.newest(key):
            await asyncio.sleep(0.02)


async def test_a_batch_is_announced_once_with_its_ids_and_bytes(redis: Redis, flusher: Flusher) -> None:
    key = new_key()
    async with redis.pubsub() as channel:
        await channel.subscribe(key)
        assert (await channel.get_message(timeout=limit(20)))["type"] == "subscribe"
        writer = flusher.writer(key, 1001, create=True)
        await writer.append(Start("m1"), TextStart("t1"))
        await writer.drain()
        message = await channel.get_message(timeout=limit(20))
    assert message["data"] == b'1001-1 1001-2 {"type":"start","messageId":"m1"}\n{"type":"text-start","id":"t1"}'


async def test_every_append_resets_the_ttl_of_the_stream(redis: Redis, flusher: Flusher) -> None:
    key = new_key()
    writer = flusher.writer(key, 1001, create=True)
    for chunk in (Start("m1"), TextStart("t1")):
        await writer.append(chunk)
        await writer.drain()
        assert TTL - 5 <= await redis.ttl(key) <= TTL
        await redis.expire(key, 30)


async def test_a_long_backlog_is_written_completely_in_several_batches(flusher: Flusher, streams: Streams) -> None:
    key = new_key()
    writer = flusher.writer(key, 1001, create=True)
    await writer.append(*(Data("n", i) for i in range(3000)))
    assert await writer.drain() == StreamId(1001, 3000)
    entries = await whole(streams, key)
    assert_dense(entries, 1001)
    assert [orjson.loads(body)["data"] for _, body in entries] == list(range(3000))


async def test_a_drain_with_nothing_to_do_returns_at_once(flusher: Flusher) -> None:
    assert await flusher.writer(new_key(), 1001, create=True).drain() == StreamId(1001, 0)


_actions = st.lists(
    st.one_of(
        st.builds(TextDelta, st.sampled_from(["t1", "t2"]), st.text(max_size=8)),
        st.builds(Data, st.just("n"), st.integers(0, 9)),
        st.sampled_from(["drain", "yield"]),
    ),
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck), print_blob=True)
@given(actions=_actions)
async def test_every_part_keeps_its_text_however_appends_and_flushes_interleave(
    redis_dsn: str, actions: list[Chunk | str]
) -> None:
    key = new_key()
    async with Redis.from_url(redis_dsn) as redis, Flusher(redis, ttl=TTL) as flusher:
        writer = flusher.writer(key, 1001, create=True)
        for action in actions:
            if action == "drain":
                await writer.drain()
            elif action == "yield":
                await asyncio.sleep(0)
            else:
                await writer.append(action)
        await writer.drain()
        entries = await whole(Streams(redis, TTL), key)
    assert_dense(entries, 1001)
    sent = [action for action in actions if isinstance(action, TextDelta)]
    found = [orjson.loads(body) for _, body in entries]
    for part in ("t1", "t2"):
        texts = [chunk["delta"] for chunk in found if chunk.get("id") == part]
        assert "".join(texts) == "".join(chunk.delta for chunk in sent if chunk.id == part)
    assert [c["data"] for c in found if "data" in c] == [action.data for action in actions if isinstance(action, Data)]


async def test_a_half_written_batch_is_completed_and_announced_as_a_whole(
    redis: Redis, flusher: Flusher, streams: Streams
) -> None:
    key = new_key()
    await redis.xadd(key, {"d": encode(Start("m1"))}, id="1001-1")
    async with redis.pubsub() as channel:
        await channel.subscribe(key)
        await channel.get_message(timeout=limit(20))
        writer = flusher.writer(key, 1001, create=True)
        await writer.append(Start("m1"), TextStart("t1"))
        assert await writer.drain() == StreamId(1001, 2)
        assert (await channel.get_message(timeout=limit(20)))["data"].startswith(b"1001-1 1001-2 ")
    assert [e.body for e in await whole(streams, key)] == [encode(Start("m1")), encode(TextStart("t1"))]


# --- fencing ------------------------------------------------------------------------------------------------------


async def test_a_fenced_writer_stores_and_announces_nothing(redis: Redis, flusher: Flusher, streams: Streams) -> None:
    key = new_key()
    outdated, successor = (flusher.writer(key, fence, create=True) for fence in (1001, 1002))
    await outdated.append(Start("m1"))
    await outdated.drain()
    await successor.append(TextStart("t2"))
    await successor.drain()
    before = await whole(streams, key)
    async with redis.pubsub() as channel:
        await channel.subscribe(key)
        await channel.get_message(timeout=limit(20))
        await outdated.append(TextDelta("t1", "late"))
        with pytest.raises(Fenced):
            await outdated.drain()
        await successor.append(TextEnd("t2"))
        await successor.drain()
        assert (await channel.get_message(timeout=limit(20)))["data"].startswith(b"1002-2 1002-2 ")
    assert (await whole(streams, key))[:-1] == before


async def test_an_outdated_writer_is_fenced_at_its_first_write(flusher: Flusher) -> None:
    key = new_key()
    successor, outdated = (flusher.writer(key, fence, create=True) for fence in (1002, 1001))
    await successor.append(Start("m1"))
    await successor.drain()
    await outdated.append(Start("m1"))
    with pytest.raises(Fenced):
        await outdated.drain()


async def test_a_fenced_writer_raises_fenced_at_every_call(flusher: Flusher) -> None:
    key = new_key()
    successor, outdated = (flusher.writer(key, fence, create=True) for fence in (1002, 1001))
    await successor.append(Start("m1"))
    await successor.drain()
    await outdated.append(Start("m1"))
    for call in (outdated.drain, lambda: outdated.append(Start("m1")), lambda: outdated.control(END), outdated.drain):
        with pytest.raises(Fenced):
            await call()


async def test_a_writer_is_fenced_even_if_all_entries_of_its_successor_were_deleted(
    flusher: Flusher, streams: Streams
) -> None:
    key = new_key()
    outdated, successor = (flusher.writer(key, fence, create=True) for fence in (1001, 1002))
    await outdated.append(Start("m1"))
    await outdated.drain()
    await successor.append(TextStart("t2"))
    await streams.remove(key, [await successor.drain()])
    await outdated.append(TextStart("t1"))
    with pytest.raises(Fenced):
        await outdated.drain()


async def test_a_vanished_stream_is_gone_and_is_not_created_again(flusher: Flusher, streams: Streams) -> None:
    key = new_key()
    writer = flusher.writer(key, 1001, create=True)
    await writer.append(Start("m1"))
    await writer.drain()
    await streams.delete(key)
    await writer.append(TextStart("t1"))
    with pytest.raises(StreamGone):
        await writer.drain()
    assert await streams.top(key) is None


async def test_a_stream_that_lost_acknowledged_entries_is_gone(
    redis: Redis, flusher: Flusher, streams: Streams
) -> None:
    """Redis was restarted with an older state."""
    key = new_key()
    writer = flusher.writer(key, 1001, create=True)
    await writer.append(Start("m1"), TextStart("t1"), TextEnd("t1"))
    await writer.drain()
    await streams.delete(key)
    await redis.xadd(key, {"d": encode(Start("m1"))}, id="1001-1")
    await redis.expire(key, TTL)
    await writer.append(TextStart("t2"))
    with pytest.raises(StreamGone):
        await writer.drain()
    assert await streams.top(key) == StreamId(1001, 1)


async def test_a_writer_that_may_not_create_the_stream_finds_it_gone(flusher: Flusher) -> None:
    writer = flusher.writer(new_key(), 1001, create=False)
    await writer.append(Start("m1"))
    with pytest.raises(StreamGone):
        await writer.drain()


# --- isolation of writers -----------------------------------------------------------------------------------------


async def test_a_chunk_that_json_cannot_represent_is_refused_and_affects_no_other(
    flusher: Flusher, streams: Streams
) -> None:
    bad, good = new_key(), new_key()
    writer, other = (flusher.writer(key, 1001, create=True) for key in (bad, good))
    await other.append(Start("m2"))
    with pytest.raises((TypeError, ValueError)):
        await writer.append(Start("m1"), Data("n", object()))
    with pytest.raises(TypeError):
        await writer.append(TextDelta("t1", None))  # type: ignore[arg-type]
    await writer.append(TextStart("t1"))
    await asyncio.gather(writer.drain(), other.drain())
    assert [e.body for e in await whole(streams, bad)] == [encode(Start("m1")), encode(TextStart("t1"))]
    assert [e.body for e in await whole(streams, good)] == [encode(Start("m2"))]


async def test_a_part_id_that_is_not_text_fails_its_own_writer_only(flusher: Flusher) -> None:
    writer, other = (flusher.writer(new_key(), 1001, create=True) for _ in range(2))
    await writer.append(TextDelta(object(), "x"))  # type: ignore[arg-type]
    await other.append(Start("m2"))
    with pytest.raises((TypeError, ValueError)):
        await writer.drain()
    assert await other.drain() == StreamId(1001, 1)


async def test_a_stream_that_refuses_writes_does_not_delay_others_and_recovers(
    redis: Redis, flusher: Flusher, streams: Streams
) -> None:
    blocked, free = new_key(), new_key()
    await redis.set(blocked, "a string", ex=TTL)
    writer, other = (flusher.writer(key, 1001, create=True) for key in (blocked, free))
    for i in range(20):
        await writer.append(TextDelta("t1", f"{i};"))
        await other.append(TextDelta("t1", f"{i};"))
        await other.drain()
    await redis.delete(blocked)
    await asyncio.wait_for(writer.drain(), limit(20))
    assert text_of(await whole(streams, blocked)) == text_of(await whole(streams, free))


async def test_a_stream_that_refuses_writes_until_the_deadline_is_unavailable(redis: Redis) -> None:
    key = new_key()
    await redis.set(key, "a string", ex=TTL)
    async with Flusher(redis, ttl=TTL, deadline=limit(0.5)) as flusher:
        writer, other = flusher.writer(key, 1001, create=True), flusher.writer(new_key(), 1001, create=True)
        await writer.append(Start("m1"))
        with pytest.raises(StreamUnavailable, match="WRONGTYPE"):
            await asyncio.wait_for(writer.drain(), limit(20))
        await other.append(Start("m2"))
        await other.drain()


async def test_scripts_that_redis_forgot_are_loaded_again(redis: Redis, flusher: Flusher, streams: Streams) -> None:
    keys = [new_key() for _ in range(20)]
    writers = [flusher.writer(key, 1001, create=True) for key in keys]
    for word in ("a", "b", "c"):
        await redis.script_flush()
        for writer in writers:
            await writer.append(TextDelta("t1", word))
        await asyncio.gather(*(writer.drain() for writer in writers))
    for key in keys:
        entries = await whole(streams, key)
        assert_dense(entries, 1001)
        assert text_of(entries) == "abc"


# --- limits and closing -------------------------------------------------------------------------------------------


async def test_chunks_left_in_a_closed_flusher_are_reported_as_lost(redis: Redis) -> None:
    flusher = Flusher(redis, ttl=TTL)
    writer = flusher.writer(new_key(), 1001, create=True)
    await writer.append(Start("m1"))
    waiting = asyncio.ensure_future(writer.drain())
    await asyncio.sleep(0)
    async with flusher:
        pass
    with pytest.raises(StreamUnavailable):
        await waiting
    late = flusher.writer(new_key(), 1001, create=True)
    await late.append(Start("m1"))
    with pytest.raises(StreamUnavailable):
        await late.drain()


async def test_an_append_to_a_full_buffer_waits_for_space(redis: Redis, streams: Streams) -> None:
    flusher, key, piece, pieces = Flusher(redis, ttl=TTL), new_key(), "x" * 10_000, 0
    writer = flusher.writer(key, 1001, create=True)
    while pieces < 2 * BUFFER_CAP // len(piece):
        waiting = asyncio.ensure_future(writer.append(Data("n", piece)))
        await asyncio.sleep(0)
        pieces += 1
        if not waiting.done():
            break
    assert not waiting.done()
    cancelled = asyncio.ensure_future(writer.append(Data("n", "never")))
    await asyncio.sleep(0)
    cancelled.cancel()
    async with flusher:
        await asyncio.wait_for(waiting, limit(20))
        await asyncio.wait_for(writer.drain(), limit(20))
    assert [orjson.loads(body)["data"] for _, body in await whole(streams, key)] == [piece] * pieces


# --- plain operations ---------------------------------------------------------------------------------------------


async def test_a_page_ends_at_the_given_id(flusher: Flusher, streams: Streams) -> None:
    key = new_key()
    writer = flusher.writer(key, 1001, create=True)
    await writer.append(*(Data("n", i) for i in range(9)))
    await writer.drain()
    found = await streams.page(key, StreamId(1001, 2), until=StreamId(1001, 5))
    assert [entry.id.seq for entry in found] == [3, 4, 5]
    assert [entry.id.seq for entry in await streams.newest(key, count=2)] == [8, 9]
    assert await streams.has(key, StreamId(1001, 9))
    assert not await streams.has(key, StreamId(1001, 10))


async def test_a_missing_stream_is_empty(streams: Streams) -> None:
    key = new_key()
    assert (await streams.page(key, BEGINNING), await streams.newest(key), await streams.top(key)) == ([], [], None)
    await streams.refresh([key])
    await streams.delete(key)


async def test_refresh_resets_the_ttl_of_each_stream(redis: Redis, flusher: Flusher, streams: Streams) -> None:
    keys = [new_key(), new_key()]
    for key in keys:
        writer = flusher.writer(key, 1001, create=True)
        await writer.append(Start("m1"))
        await writer.drain()
        await redis.expire(key, 10)
    await streams.refresh(keys)
    assert [TTL - 5 <= await redis.ttl(key) <= TTL for key in keys] == [True, True]


async def test_an_unreachable_redis_raises_unavailable() -> None:
    async with Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(Unavailable):
            await Streams(client, TTL).top(new_key())


async def test_streams_are_written_although_their_channels_are_forbidden(
    redis: Redis, redis_dsn: str, streams: Streams
) -> None:
    """Readers then find the chunks by looking. No stream of a call waits for the error of another."""
    user = f"writer-{uuid.uuid4().hex}"
    await redis.acl_setuser(user, enabled=True, nopass=True, keys=["*"], reset_channels=True, categories=["+@all"])
    keys = [new_key() for _ in range(5)]
    try:
        async with Redis.from_url(redis_dsn, username=user, password="any") as client:
            outcomes = await append(client, [Batch(key, 1001, 1, [b"x"], create=True) for key in keys], TTL)
    finally:
        await redis.acl_deluser(user)
    assert outcomes == [Appended.NOW] * len(keys)
    assert [len(await whole(streams, key)) for key in keys] == [1] * len(keys)
