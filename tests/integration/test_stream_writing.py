"""Chunks enter a stream in order, each exactly once, whatever Redis and the network do meanwhile."""

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

from backend.chat.chunks import END, Chunk, Data, Start, TextDelta, TextEnd, TextStart, encode
from backend.chat.keys import stream_key
from backend.chat.streams import Entry, Streams
from backend.chat.writing import BUFFER_CAP, Flusher
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


async def test_chunks_are_entries_under_dense_ids_in_the_order_of_their_appending(
    flusher: Flusher, streams: Streams
) -> None:
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


async def test_deltas_that_wait_together_leave_as_one(flusher: Flusher, streams: Streams) -> None:
    key = new_key()
    writer = flusher.writer(key, 1001, create=True)
    for i in range(1000):
        await writer.append(TextDelta("t1", f"{i};"))
    await writer.drain()
    entries = await whole(streams, key)
    assert len(entries) < 10
    assert text_of(entries) == "".join(f"{i};" for i in range(1000))


async def test_a_chunk_leaves_although_nobody_drains(flusher: Flusher, streams: Streams) -> None:
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


async def test_every_append_gives_the_stream_its_full_life_again(redis: Redis, flusher: Flusher) -> None:
    key = new_key()
    writer = flusher.writer(key, 1001, create=True)
    for chunk in (Start("m1"), TextStart("t1")):
        await writer.append(chunk)
        await writer.drain()
        assert TTL - 5 <= await redis.ttl(key) <= TTL
        await redis.expire(key, 30)


async def test_a_long_backlog_goes_in_several_batches_and_stays_whole(flusher: Flusher, streams: Streams) -> None:
    key = new_key()
    writer = flusher.writer(key, 1001, create=True)
    await writer.append(*(Data("n", i) for i in range(3000)))
    assert await writer.drain() == StreamId(1001, 3000)
    entries = await whole(streams, key)
    assert_dense(entries, 1001)
    assert [orjson.loads(body)["data"] for _, body in entries] == list(range(3000))


async def test_a_drain_with_nothing_to_do_returns_at_once(flusher: Flusher) -> None:
    assert await flusher.writer(new_key(), 1001, create=True).drain() == StreamId(1001, 0)


_acts = st.lists(
    st.one_of(
        st.builds(TextDelta, st.sampled_from(["t1", "t2"]), st.text(max_size=8)),
        st.builds(Data, st.just("n"), st.integers(0, 9)),
        st.sampled_from(["drain", "yield"]),
    ),
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck), print_blob=True)
@given(acts=_acts)
async def test_however_appends_and_flushes_interleave_every_part_keeps_its_text(
    redis_dsn: str, acts: list[Chunk | str]
) -> None:
    key = new_key()
    async with Redis.from_url(redis_dsn) as redis, Flusher(redis, ttl=TTL) as flusher:
        writer = flusher.writer(key, 1001, create=True)
        for act in acts:
            if act == "drain":
                await writer.drain()
            elif act == "yield":
                await asyncio.sleep(0)
            else:
                await writer.append(act)
        await writer.drain()
        entries = await whole(Streams(redis, TTL), key)
    assert_dense(entries, 1001)
    sent = [act for act in acts if isinstance(act, TextDelta)]
    found = [orjson.loads(body) for _, body in entries]
    for part in ("t1", "t2"):
        texts = [chunk["delta"] for chunk in found if chunk.get("id") == part]
        assert "".join(texts) == "".join(chunk.delta for chunk in sent if chunk.id == part)
    assert [c["data"] for c in found if "data" in c] == [act.data for act in acts if isinstance(act, Data)]


async def test_a_batch_of_which_the_first_half_is_there_is_completed_and_announced_whole(
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


# --- who may append -----------------------------------------------------------------------------------------------


async def test_a_zombie_is_fenced_and_nothing_of_it_is_stored_or_announced(
    redis: Redis, flusher: Flusher, streams: Streams
) -> None:
    key = new_key()
    zombie, heir = (flusher.writer(key, fence, create=True) for fence in (1001, 1002))
    await zombie.append(Start("m1"))
    await zombie.drain()
    await heir.append(TextStart("t2"))
    await heir.drain()
    before = await whole(streams, key)
    async with redis.pubsub() as channel:
        await channel.subscribe(key)
        await channel.get_message(timeout=limit(20))
        await zombie.append(TextDelta("t1", "late"))
        with pytest.raises(Fenced):
            await zombie.drain()
        await heir.append(TextEnd("t2"))
        await heir.drain()
        assert (await channel.get_message(timeout=limit(20)))["data"].startswith(b"1002-2 1002-2 ")
    assert (await whole(streams, key))[:-1] == before


async def test_a_zombie_that_never_wrote_is_fenced_too(flusher: Flusher) -> None:
    key = new_key()
    heir, zombie = (flusher.writer(key, fence, create=True) for fence in (1002, 1001))
    await heir.append(Start("m1"))
    await heir.drain()
    await zombie.append(Start("m1"))
    with pytest.raises(Fenced):
        await zombie.drain()


async def test_a_fenced_writer_says_so_at_every_call(flusher: Flusher) -> None:
    key = new_key()
    heir, zombie = (flusher.writer(key, fence, create=True) for fence in (1002, 1001))
    await heir.append(Start("m1"))
    await heir.drain()
    await zombie.append(Start("m1"))
    for call in (zombie.drain, lambda: zombie.append(Start("m1")), lambda: zombie.control(END), zombie.drain):
        with pytest.raises(Fenced):
            await call()


async def test_a_zombie_is_fenced_when_all_that_its_heir_wrote_was_deleted(flusher: Flusher, streams: Streams) -> None:
    key = new_key()
    zombie, heir = (flusher.writer(key, fence, create=True) for fence in (1001, 1002))
    await zombie.append(Start("m1"))
    await zombie.drain()
    await heir.append(TextStart("t2"))
    await streams.remove(key, [await heir.drain()])
    await zombie.append(TextStart("t1"))
    with pytest.raises(Fenced):
        await zombie.drain()


async def test_a_stream_that_vanished_is_gone_and_is_not_made_again(flusher: Flusher, streams: Streams) -> None:
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
    """A Redis that came back with an older state."""
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


async def test_a_writer_that_may_not_make_the_stream_finds_it_gone(flusher: Flusher) -> None:
    writer = flusher.writer(new_key(), 1001, create=False)
    await writer.append(Start("m1"))
    with pytest.raises(StreamGone):
        await writer.drain()


# --- one's trouble is not the others' -----------------------------------------------------------------------------


async def test_a_chunk_that_json_cannot_say_is_refused_and_harms_no_other(flusher: Flusher, streams: Streams) -> None:
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


async def test_a_part_id_that_is_no_text_ends_its_own_writer_only(flusher: Flusher) -> None:
    writer, other = (flusher.writer(new_key(), 1001, create=True) for _ in range(2))
    await writer.append(TextDelta(object(), "x"))  # type: ignore[arg-type]
    await other.append(Start("m2"))
    with pytest.raises((TypeError, ValueError)):
        await writer.drain()
    assert await other.drain() == StreamId(1001, 1)


async def test_a_stream_that_refuses_does_not_hold_up_the_others_and_goes_on_when_it_can(
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


async def test_a_stream_that_refuses_to_the_end_is_unavailable(redis: Redis) -> None:
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


# --- limits and leaving -------------------------------------------------------------------------------------------


async def test_what_a_closed_flusher_still_holds_is_said_to_be_lost(redis: Redis) -> None:
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


async def test_a_full_buffer_suspends_until_there_is_room(redis: Redis, streams: Streams) -> None:
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


async def test_pages_end_where_they_are_told_to(flusher: Flusher, streams: Streams) -> None:
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


async def test_refresh_gives_each_stream_its_full_life_again(redis: Redis, flusher: Flusher, streams: Streams) -> None:
    keys = [new_key(), new_key()]
    for key in keys:
        writer = flusher.writer(key, 1001, create=True)
        await writer.append(Start("m1"))
        await writer.drain()
        await redis.expire(key, 10)
    await streams.refresh(keys)
    assert [TTL - 5 <= await redis.ttl(key) <= TTL for key in keys] == [True, True]


async def test_a_redis_that_is_away_is_unavailable() -> None:
    async with Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0)) as nobody:
        with pytest.raises(Unavailable):
            await Streams(nobody, TTL).top(new_key())
