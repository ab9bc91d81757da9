"""Tests of readers: a client gets each chunk exactly once and in order despite cuts, losses and delays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.chat.models import Task, TaskStatus
from backend.chat.protocol.chunks import (
    END,
    Chunk,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    StartStep,
    TextDelta,
    TextStart,
    ToolInputDelta,
    ToolInputStart,
)
from backend.chat.streams.reader import attach, wait_for_end
from backend.errors import CursorExpired, NothingLeft, StreamCut, TaskExpired
from backend.ids import StreamId
from tests.integration.reader_rig import ReaderRig, key_of, reader_rig, text_of, turn_of, until
from tests.speed import limit
from tests.sse_client import StrictClient


@pytest.fixture(scope="module")
async def rig(redis_dsn: str) -> AsyncIterator[ReaderRig]:
    async with reader_rig(redis_dsn) as rig:
        yield rig


async def test_a_reader_gets_the_whole_answer_as_it_is_written(rig: ReaderRig) -> None:
    task = rig.task()
    reading = asyncio.create_task(rig.read(task, StrictClient()))
    writer = rig.writer(task)
    for chunk in turn_of(50):
        await writer.append(chunk)
        await asyncio.sleep(0)
    await writer.control(END)
    client = await reading
    assert client.done
    assert client.text == text_of(50)
    assert client.cursor.fence == task.fence
    assert rig.hub.following == 0


async def test_replay_merges_neighbouring_deltas_under_the_last_ones_id(rig: ReaderRig) -> None:
    task = rig.task()
    await rig.write(task, [*turn_of(2500), END])
    client = await rig.read(task, StrictClient())
    assert client.text == text_of(2500)
    assert len(client.chunks) < 20
    assert client.ids[-1] == StreamId(task.fence, 2506)


async def test_a_client_may_reconnect_after_any_chunk(rig: ReaderRig) -> None:
    """The cursor of any single chunk is followed by exactly the remaining chunks."""
    task = rig.task()
    chunks = turn_of(12)
    await rig.write(task, [*chunks, END])
    for seen in range(1, len(chunks)):
        client = StrictClient(cursor=StreamId(task.fence, seen))
        reader = await attach(
            rig.hub, rig.streams, task, client.cursor, accepts=frozenset(), messages_of=rig.messages_of
        )
        data = b"".join([piece async for piece in reader])
        rest = [e for e in data.split(b"\n\n") if e]
        assert rest[-1] == b"data: [DONE]"
        assert b"word0 " not in data if seen > 3 else True
        deltas = [n for n in range(12) if f"word{n} ".encode() in data]
        assert deltas == list(range(max(0, seen - 3), 12))


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    cuts=st.lists(st.integers(1, 12), max_size=10),
    pauses=st.lists(st.integers(0, 3), min_size=5, max_size=9),
    late=st.integers(0, 60),
)
async def test_any_pattern_of_reconnects_delivers_each_chunk_once(
    rig: ReaderRig, cuts: list[int], pauses: list[int], late: int
) -> None:
    task = rig.task()
    chunks = turn_of(60)
    joined = asyncio.Event()

    async def write() -> None:
        writer = rig.writer(task)
        for n, chunk in enumerate(chunks):
            await writer.append(chunk)
            if n == late:
                joined.set()
            for _ in range(pauses[n % len(pauses)]):
                await asyncio.sleep(0)
        joined.set()
        await writer.control(END)
        await writer.drain()

    async def read(client: StrictClient) -> StrictClient:
        await joined.wait()
        for cut in cuts:
            if not client.done:
                await _resume(rig, task, client, cut)
        if not client.done:
            await _resume(rig, task, client, None)
        return client

    _, first, second = await asyncio.gather(write(), read(StrictClient()), read(StrictClient()))
    for client in (first, second):
        assert client.text == text_of(60)
        assert client.types[-1] == "finish"
    assert rig.hub.following == 0


async def _resume(rig: ReaderRig, task: Task, client: StrictClient, at_most: int | None) -> None:
    try:
        await rig.read(task, client, at_most=at_most)
    except NothingLeft:
        client.done = True


async def test_two_readers_and_a_late_joiner_share_one_subscription(rig: ReaderRig) -> None:
    task = rig.task()
    writer = rig.writer(task)
    chunks = turn_of(30)
    readings = [asyncio.create_task(rig.read(task, StrictClient())) for _ in range(2)]
    await until(lambda: _subscribed(rig, task))
    await writer.append(*chunks[:15])
    await writer.drain()
    readings.append(asyncio.create_task(rig.read(task, StrictClient())))
    await asyncio.sleep(0)
    assert rig.hub.following == 1
    await writer.append(*chunks[15:])
    await writer.control(END)
    assert [(await reading).text for reading in readings] == [text_of(30)] * 3
    await until(lambda: _unsubscribed(rig, task))


async def _no_more_jobs_than(number: int) -> bool:
    return len(asyncio.all_tasks()) <= number


async def _subscribed(rig: ReaderRig, task: Task) -> bool:
    return await rig.subscribers(task) == 1


async def _unsubscribed(rig: ReaderRig, task: Task) -> bool:
    return await rig.subscribers(task) == 0


async def _tailing(rig: ReaderRig, task: Task, client: StrictClient, chunks: int) -> asyncio.Task[StrictClient]:
    """Starts a reader and waits until it has `chunks` chunks. The reader then waits for more."""
    reading = asyncio.create_task(rig.read(task, client))

    async def arrived() -> bool:
        if reading.done():
            await reading
        return len(client.chunks) >= chunks

    await until(arrived)
    return reading


async def test_a_lost_notification_delays_a_chunk_but_loses_none(rig: ReaderRig) -> None:
    task = rig.task()
    chunks = turn_of(3)
    await rig.write(task, chunks[:4])
    client = StrictClient()
    reading = await _tailing(rig, task, client, 4)
    await rig.write(task, [*chunks[4:], END], first=5, silently=True)
    assert (await reading).text == text_of(3)


async def test_a_gap_between_notifications_is_filled_from_the_stream(rig: ReaderRig) -> None:
    task = rig.task()
    chunks = turn_of(10)
    await rig.write(task, chunks[:4])
    reading = await _tailing(rig, task, StrictClient(), 4)
    await rig.write(task, chunks[4:8], first=5, silently=True)
    await rig.write(task, [*chunks[8:], END], first=9)
    assert (await reading).text == text_of(10)


async def test_outdated_repeated_and_unreadable_notifications_change_nothing(rig: ReaderRig) -> None:
    task = rig.task()
    chunks = turn_of(4)
    await rig.write(task, chunks[:4])
    reading = await _tailing(rig, task, StrictClient(), 4)
    body = b'{"type":"text-delta","id":"t1","delta":"outdated"}'
    for fence in (task.fence - 1, task.fence):
        await rig.redis.publish(key_of(task), b"%d-3 %d-4 %b\n%b" % (fence, fence, body, body))
    for noise in (b"", b"x", b"1-1 1-2", b"1 2 3", b"\xff \xff \xff"):
        await rig.redis.publish(key_of(task), noise)
    await rig.write(task, [*chunks[4:], END], first=5)
    assert (await reading).text == text_of(4)


async def test_a_reader_waits_for_a_task_that_has_not_started(rig: ReaderRig) -> None:
    task = rig.task(TaskStatus.QUEUED)
    reading = asyncio.create_task(rig.read(task, StrictClient()))
    await until(lambda: _subscribed(rig, task))
    await asyncio.sleep(0.3)  # several ticks: a missing stream must not end the reader
    assert not reading.done()
    await rig.write(task, [*turn_of(3), END])
    assert (await reading).text == text_of(3)


# --- an end without terminal chunks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED])
async def test_an_ended_task_without_terminal_chunks_is_ended_from_its_row(rig: ReaderRig, status: TaskStatus) -> None:
    task = rig.task()
    chunks: list[Chunk] = [Start("m"), StartStep(), ReasoningStart("r"), ReasoningDelta("r", "hm"), ReasoningEnd("r")]
    chunks += [TextStart("t"), TextDelta("t", "half"), ToolInputStart("c", "find"), ToolInputDelta("c", '{"a')]
    await rig.write(task, chunks)
    client = StrictClient()
    reading = await _tailing(rig, task, client, 9)
    cursor = client.cursor
    rig.end(task, status)
    await reading
    assert client.done
    assert client.types[9:12] == ["text-end", "tool-input-error", "finish-step"]
    assert client.types[-1] == "finish"
    assert client.chunks[-1]["messageMetadata"]["status"] == status.value
    assert ("abort" in client.types) == (status is TaskStatus.CANCELLED)
    assert client.cursor == cursor, "chunks that are not in the stream have no id"


async def test_a_task_that_ended_without_a_stream_is_ended_from_its_row(rig: ReaderRig) -> None:
    task = rig.task(TaskStatus.QUEUED)
    reading = asyncio.create_task(rig.read(task, StrictClient()))
    await until(lambda: _subscribed(rig, task))
    rig.end(task, TaskStatus.CANCELLED)
    assert (await reading).types == ["start", "abort", "finish"]


async def test_a_deleted_session_cuts_its_readers(rig: ReaderRig) -> None:
    task = rig.task()
    await rig.write(task, turn_of(3)[:4])
    reading = await _tailing(rig, task, StrictClient(), 4)
    del rig.rows[task.id]
    with pytest.raises(StreamCut):
        await reading


async def test_a_wait_for_the_end_of_a_task_returns_when_the_stream_or_the_row_ends(rig: ReaderRig) -> None:
    task = rig.task()
    chunks = turn_of(3)
    await rig.write(task, chunks[:4])
    async with asyncio.timeout(limit(20)):
        waiting = asyncio.create_task(wait_for_end(rig.hub, rig.streams, task))
        await until(lambda: _subscribed(rig, task))
        assert not waiting.done()
        await rig.write(task, [*chunks[4:], END], first=5)
        await waiting
        await wait_for_end(rig.hub, rig.streams, task)
        silent = rig.task()
        await rig.write(silent, chunks[:4])
        rig.end(silent)
        await wait_for_end(rig.hub, rig.streams, silent)


# --- a damaged stream -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["delete", "empty", "recreate"])
async def test_a_reader_whose_stream_is_lost_is_cut(rig: ReaderRig, damage: str) -> None:
    task = rig.task()
    await rig.write(task, turn_of(9)[:10])
    client = StrictClient()
    reading = await _tailing(rig, task, client, 4)
    if damage == "empty":
        await rig.redis.xtrim(key_of(task), maxlen=0)
    else:
        await rig.redis.delete(key_of(task))
    if damage == "recreate":
        await rig.write(task, turn_of(9)[:4])
    with pytest.raises(StreamCut):
        await reading
    with pytest.raises(CursorExpired):
        await rig.read(task, client)


async def test_a_trimmed_stream_is_not_replayed(rig: ReaderRig) -> None:
    task = rig.task()
    chunks = turn_of(9)
    await rig.write(task, chunks[:10])
    await rig.redis.xtrim(key_of(task), maxlen=3, approximate=False)
    with pytest.raises(TaskExpired):
        await rig.read(task, StrictClient())
    with pytest.raises(CursorExpired):
        await rig.read(task, StrictClient(cursor=StreamId(task.fence, 7)))
    reader = await attach(
        rig.hub, rig.streams, task, StreamId(task.fence, 8), accepts=frozenset(), messages_of=rig.messages_of
    )
    assert b"word5 word6 " in await anext(reader)
    await reader.aclose()


async def test_a_slow_reader_whose_entries_were_trimmed_is_cut(rig: ReaderRig) -> None:
    task = rig.task()
    chunks = turn_of(4000)
    await rig.write(task, chunks)
    reader = await attach(rig.hub, rig.streams, task, None, accepts=frozenset(), messages_of=rig.messages_of)
    await anext(reader)
    await rig.redis.xtrim(key_of(task), maxlen=100, approximate=False)
    with pytest.raises(StreamCut):
        await _drain(reader)


async def _drain(reader: AsyncIterator[bytes]) -> None:
    async with asyncio.timeout(limit(20)):
        async for _ in reader:
            pass


# --- before the first byte --------------------------------------------------------------------------------------------


async def test_cursors_that_cannot_be_served_are_refused_before_the_first_byte(rig: ReaderRig) -> None:
    task, other = rig.task(), rig.task()
    await rig.write(task, turn_of(5)[:6])
    last = StreamId(task.fence, 6)
    wrong = [
        StreamId(other.fence, 1),
        StreamId(task.fence, 7),
        StreamId(task.fence + 1, 1),
        StreamId(task.fence, 0),
        StreamId(task.fence, last.seq | 1 << 40),
        StreamId(task.fence, 2**63),
        StreamId(1, 1),
    ]
    for cursor in wrong:
        with pytest.raises(CursorExpired):
            await rig.read(task, StrictClient(cursor=cursor))
    with pytest.raises(CursorExpired):
        await rig.read(other, StrictClient(cursor=StreamId(other.fence, 1)))
    assert rig.hub.following == 0


async def test_a_cursor_at_the_end_of_an_ended_stream_raises_nothing_left(rig: ReaderRig) -> None:
    task = rig.task(TaskStatus.COMPLETED)
    await rig.write(task, [*turn_of(2), END])
    client = await rig.read(task, StrictClient())
    with pytest.raises(NothingLeft):
        await rig.read(task, StrictClient(cursor=client.cursor))


async def test_an_ended_task_whose_stream_is_gone_has_expired(rig: ReaderRig) -> None:
    task = rig.task(TaskStatus.COMPLETED)
    with pytest.raises(TaskExpired):
        await rig.read(task, StrictClient())
    with pytest.raises(CursorExpired):
        await rig.read(task, StrictClient(cursor=StreamId(task.fence, 3)))


# --- leaving, and size ------------------------------------------------------------------------------------------------


async def test_readers_cancelled_at_any_moment_leave_nothing_behind(rig: ReaderRig) -> None:
    rng = random.Random(7)
    jobs = len(asyncio.all_tasks())
    tasks = [rig.task() for _ in range(10)]
    for task in tasks:
        await rig.write(task, turn_of(5)[:6])

    async def connect_and_leave(n: int) -> None:
        reading = asyncio.create_task(rig.read(tasks[n % 10], StrictClient()))
        for _ in range(rng.randrange(60)):
            await asyncio.sleep(0)
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() * 0.02)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    for start in range(0, 500, 50):
        await asyncio.gather(*(connect_and_leave(n) for n in range(start, start + 50)))
    assert rig.hub.following == 0
    for task in tasks:
        await until(lambda task=task: _unsubscribed(rig, task))  # type: ignore[misc]
    await until(lambda: _no_more_jobs_than(jobs))


async def test_fifty_thousand_entries_are_replayed_in_writes_of_bounded_size(rig: ReaderRig) -> None:
    task = rig.task(TaskStatus.COMPLETED)
    chunks: list[Chunk | bytes] = [*turn_of(50_000), END]
    for start in range(0, len(chunks), 5000):
        await rig.write(task, chunks[start : start + 5000], first=start + 1)
    reader = await attach(rig.hub, rig.streams, task, None, accepts=frozenset(), messages_of=rig.messages_of)
    client, sizes = StrictClient(), []
    async for data in reader:
        sizes.append(len(data))
        client.feed(data)
    assert client.done
    assert client.text == text_of(50_000)
    assert max(sizes) <= 256 << 10


async def test_a_slow_reader_gets_the_accumulated_chunks_in_few_writes(rig: ReaderRig) -> None:
    task = rig.task()
    await rig.write(task, [Start("m"), StartStep(), TextStart("t")])
    reader = await attach(rig.hub, rig.streams, task, None, accepts=frozenset(), messages_of=rig.messages_of)
    client = StrictClient()
    client.feed(await anext(reader))
    pending = asyncio.ensure_future(anext(reader))
    await until(lambda: _subscribed(rig, task))
    await rig.write(task, [TextDelta("t", "0 ")], first=4)
    client.feed(await pending)
    other_reader = await _tailing(rig, task, other_client := StrictClient(), 4)
    for n in range(1, 100):
        await rig.write(task, [TextDelta("t", f"{n} ")], first=4 + n)

    async def all_arrived() -> bool:
        return other_client.text.count(" ") == 100

    await until(all_arrived)
    writes = 0
    while client.text.count(" ") < 100:
        client.feed(await anext(reader))
        writes += 1
    assert writes <= 5
    await reader.aclose()
    other_reader.cancel()
    await asyncio.wait({other_reader})


async def test_large_chunks_arrive_complete(rig: ReaderRig) -> None:
    task = rig.task()
    client = StrictClient()
    reading = asyncio.create_task(rig.read(task, client))
    big = "x" * 300_000
    writer = rig.writer(task)
    await writer.append(Start("m"), StartStep(), TextStart("t1"))
    for _ in range(5):
        await writer.append(TextDelta("t1", big))
        await writer.drain()
    await writer.append(*turn_of(0)[3:])
    await writer.control(END)
    assert (await reading).text == big * 5
    assert (await rig.read(task, StrictClient())).text == big * 5


async def test_text_that_looks_like_framing_is_one_event(rig: ReaderRig) -> None:
    task = rig.task()
    text = 'a\nb\r\nc\rdata: x\n\nevent: y\u2028\u2029"}\\"delta":"\U0001f600é\\'
    await rig.write(task, [Start("m"), StartStep(), TextStart('t"'), TextDelta('t"', text), TextDelta('t"', text)])
    client = StrictClient()
    reading = await _tailing(rig, task, client, 4)
    assert client.text == text * 2
    rig.end(task)
    await reading
    assert client.types[-1] == "finish"
