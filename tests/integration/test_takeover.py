"""Tests of takeovers: a stream whose writer died is continued from its checkpoint, even by later attempts."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest
from redis.asyncio import Redis

from backend.chat.keys import stream_key
from backend.chat.models import Task, TaskKind, TaskStatus, TurnRequest, Usage
from backend.chat.protocol.chunks import (
    END,
    FENCE,
    Abort,
    Chunk,
    Finish,
    FinishStep,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputAvailable,
    ToolOutputAvailable,
    encode,
)
from backend.chat.streams.streams import PAGE, Entry, Streams
from backend.chat.streams.takeover_marker import ANEW, RESET, Marker, PartEvent
from backend.chat.streams.terminal import ensure_terminal
from backend.chat.streams.writer import Flusher, StreamWriter
from backend.errors import Fenced, Unavailable
from backend.ids import BEGINNING, SessionId, StreamId, TaskId
from executor.turns.takeover import Takeover, take_over
from tests.speed import limit

TTL = 60
FIRST_STEP = (StartStep(), TextStart("t1"), TextDelta("t1", "one"), TextEnd("t1"), FinishStep())
HALF_STEP = (StartStep(), TextStart("t2"), TextDelta("t2", "tw"))


def new_task(*, attempt: int = 1, number: int = 7) -> Task:
    return Task(
        id=TaskId(str(uuid.uuid4())),
        number=number,
        session_id=SessionId(str(uuid.uuid4())),
        user_id=None,
        kind=TaskKind.TURN,
        status=TaskStatus.RUNNING,
        active=True,
        attempt=attempt,
        crashes=0,
        owner=None,
        cancel_requested=False,
        checkpoint=None,
        steps=0,
        request=TurnRequest("hi"),
        usage=Usage(),
        error=None,
        tool_name=None,
        operation_id=None,
        created_at=datetime.now(UTC),
        started_at=None,
        finished_at=None,
    )


def key_of(task: Task) -> str:
    return stream_key(task.session_id, task.id)


def next_attempt(task: Task, checkpoint: StreamId | None = None) -> Task:
    return replace(task, attempt=task.attempt + 1, checkpoint=checkpoint or task.checkpoint)


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


async def write(flusher: Flusher, task: Task, *chunks: Chunk | bytes) -> StreamWriter:
    """Writes one entry for each chunk, as an attempt did before it died."""
    writer = flusher.writer(key_of(task), task.fence, create=True)
    for chunk in chunks:
        await (writer.control(chunk) if isinstance(chunk, bytes) else writer.append(chunk))
        await writer.drain()
    return writer


async def append(writer: StreamWriter, *chunks: Chunk) -> StreamId:
    await writer.append(*chunks)
    return await writer.drain()


async def whole(streams: Streams, task: Task) -> list[Entry]:
    return [entry async for page in streams.pages(key_of(task), BEGINNING) for entry in page]


def visible_chunks(entries: Sequence[Entry]) -> list[bytes]:
    """Returns the chunks that a late reader gets. A marker becomes the `start-step` that it represents."""
    bodies = []
    for _, body in entries:
        marker = Marker.find(body)
        if marker is not None and not marker.mid_step and not marker.anew:
            bodies.append(encode(StartStep()))
        elif not body.startswith(b"!"):
            bodies.append(body)
    return bodies


def the_marker(entries: Sequence[Entry]) -> Marker:
    (marker,) = [marker for _, body in entries if (marker := Marker.find(body)) is not None]
    return marker


# --- the tail and the marker --------------------------------------------------------------------------------------


async def test_the_tail_after_the_checkpoint_is_replaced_by_a_fence_and_a_marker(
    flusher: Flusher, streams: Streams
) -> None:
    first = new_task()
    dead = await write(flusher, first, Start("m1"), *FIRST_STEP)
    checkpoint = dead.last
    await append(dead, *HALF_STEP)
    second = next_attempt(first, checkpoint)
    taken = await take_over(streams, flusher, second, mid_step=False)
    assert not taken.anew
    entries = await whole(streams, second)
    assert [e.body for e in entries[:6]] == [encode(c) for c in (Start("m1"), *FIRST_STEP)]
    assert entries[6] == Entry(StreamId(second.fence, 1), FENCE)
    assert the_marker(entries) == Marker(
        checkpoint,
        StreamId(first.fence, 9),
        False,
        (PartEvent(first.fence, 7, "start-step", None, None), PartEvent(first.fence, 8, "text-start", "t2", None)),
    )
    assert await append(taken.writer, TextStart("t2")) == StreamId(second.fence, 3)
    assert len(await whole(streams, second)) == 9


async def test_without_a_checkpoint_the_tail_begins_after_start(flusher: Flusher, streams: Streams) -> None:
    first = new_task()
    await write(flusher, first, Start("m1"), *HALF_STEP)
    second = next_attempt(first)
    taken = await take_over(streams, flusher, second, mid_step=False)
    assert not taken.anew
    entries = await whole(streams, second)
    assert [e.body for e in entries[:2]] == [encode(Start("m1")), FENCE]
    assert the_marker(entries).checkpoint == entries[0].id == StreamId(first.fence, 1)


async def test_a_marker_inside_a_step_has_no_events(flusher: Flusher, streams: Streams) -> None:
    first = new_task()
    call = ToolInputAvailable("c1", "look_up", {})
    dead = await write(flusher, first, Start("m1"), StartStep(), call)
    checkpoint = dead.last
    await append(dead, ToolOutputAvailable("c1", {"x": 1}))
    second = next_attempt(first, checkpoint)
    await take_over(streams, flusher, second, mid_step=True)
    entries = await whole(streams, second)
    assert the_marker(entries) == Marker(checkpoint, StreamId(first.fence, 4), True, ())
    assert visible_chunks(entries) == [encode(c) for c in (Start("m1"), StartStep(), call)]


async def test_an_attempt_that_died_at_its_checkpoint_still_leaves_a_marker(flusher: Flusher, streams: Streams) -> None:
    first = new_task()
    dead = await write(flusher, first, Start("m1"), *FIRST_STEP)
    second = next_attempt(first, dead.last)
    await take_over(streams, flusher, second, mid_step=False)
    marker = the_marker(await whole(streams, second))
    assert marker == Marker(dead.last, dead.last, False, ())


async def test_a_tail_of_several_pages_is_removed_in_one_command(
    redis: Redis, flusher: Flusher, streams: Streams
) -> None:
    first = new_task()
    dead = await write(flusher, first, Start("m1"), StartStep())
    for i in range(PAGE + 300):
        await dead.append(TextStart(f"t{i}"), TextDelta(f"t{i}", "x"), TextEnd(f"t{i}"))
    await dead.drain()
    second = next_attempt(first)
    commands = await _commands_on(redis, key_of(second), take_over(streams, flusher, second, mid_step=False))
    assert commands.count("XDEL") == 1
    entries = await whole(streams, second)
    assert len(entries) == 3
    assert len(the_marker(entries).events) == 1 + 2 * (PAGE + 300)


async def _commands_on(redis: Redis, key: str, work: Coroutine[object, object, object]) -> list[str]:
    """Awaits `work`. Returns the commands on `key` that Redis ran meanwhile."""
    commands: list[str] = []
    async with redis.monitor() as monitor:
        await work
        await redis.echo(key)
        async with asyncio.timeout(limit(20)):
            while True:
                command: str = (await monitor.next_command())["command"]
                if key in command:
                    commands.append(command.split()[0].upper())
                    if commands[-1] == "ECHO":
                        return commands


# --- fencing ------------------------------------------------------------------------------------------------------


async def test_an_attempt_that_wakes_after_its_takeover_is_fenced_and_not_announced(
    redis: Redis, flusher: Flusher, streams: Streams
) -> None:
    first = new_task()
    outdated = await write(flusher, first, Start("m1"), *HALF_STEP)
    second = next_attempt(first)
    taken = await take_over(streams, flusher, second, mid_step=False)
    before = await whole(streams, second)
    async with redis.pubsub() as channel:
        await channel.subscribe(key_of(first))
        await channel.get_message(timeout=limit(20))
        await outdated.append(TextDelta("t2", "late"))
        with pytest.raises(Fenced):
            await outdated.drain()
        await append(taken.writer, TextStart("t2"))
        assert (await channel.get_message(timeout=limit(20)))["data"].startswith(f"{second.fence}-3 ".encode())
    assert (await whole(streams, second))[:-1] == before


async def test_writes_during_a_takeover_are_fenced_or_removed(flusher: Flusher, streams: Streams) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(50):
        first = new_task()
        outdated = await write(flusher, first, Start("m1"), StartStep(), TextStart("t2"))

        async def keep_writing(outdated: StreamWriter = outdated) -> None:
            while True:
                await append(outdated, TextDelta("t2", "x"))

        writing = asyncio.ensure_future(keep_writing())
        for _ in range(rng.randrange(12)):
            await asyncio.sleep(0)
        second = next_attempt(first)
        taken = await take_over(streams, flusher, second, mid_step=False)
        with pytest.raises(Fenced):
            await asyncio.wait_for(writing, limit(20))
        await append(taken.writer, TextStart("t2"))
        assert visible_chunks(await whole(streams, second)) == [
            encode(c) for c in (Start("m1"), StartStep(), TextStart("t2"))
        ]


async def test_an_attempt_older_than_the_stream_cannot_take_over(flusher: Flusher, streams: Streams) -> None:
    first = new_task()
    await write(flusher, first, Start("m1"))
    second = next_attempt(first)
    third = next_attempt(second)
    await take_over(streams, flusher, third, mid_step=False)
    before = await whole(streams, third)
    with pytest.raises(Fenced):
        await take_over(streams, flusher, second, mid_step=False)
    assert await whole(streams, third) == before


# --- takeovers that die -------------------------------------------------------------------------------------------


class Killed(BaseException):
    """An exception in place of kill -9."""


class DyingStreams(Streams):
    """Streams that die at a given moment. There is one before and one after each command."""

    def __init__(self, redis: Redis, moments: int) -> None:
        super().__init__(redis, TTL)
        self._moments = moments

    def _moment(self) -> None:
        if self._moments == 0:
            raise Killed
        self._moments -= 1

    async def page(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self._moment()
        found = await super().page(*args, **kwargs)
        self._moment()
        return found

    async def has(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self._moment()
        found = await super().has(*args, **kwargs)
        self._moment()
        return found

    async def remove(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self._moment()
        await super().remove(*args, **kwargs)
        self._moment()


async def take_over_or_die(redis: Redis, flusher: Flusher, task: Task, moments: int) -> Takeover | None:
    try:
        return await take_over(DyingStreams(redis, moments), flusher, task, mid_step=False)
    except Killed:
        return None


@pytest.mark.parametrize("with_checkpoint", [False, True])
@pytest.mark.parametrize("moments", range(9))
async def test_a_takeover_that_died_at_any_point_can_be_taken_over(
    redis: Redis, flusher: Flusher, streams: Streams, moments: int, with_checkpoint: bool
) -> None:
    """The moments lie after the fence, before the marker, before the removal, and after the takeover."""
    first = new_task()
    dead = await write(flusher, first, Start("m1"), *FIRST_STEP)
    checkpoint = dead.last if with_checkpoint else None
    await append(dead, *HALF_STEP)
    second = next_attempt(first, checkpoint)
    taken = await take_over_or_die(redis, flusher, second, moments)
    if taken is not None:
        await append(taken.writer, TextStart("t3"), TextDelta("t3", "x"))
    third = next_attempt(second)
    taken = await take_over(streams, flusher, third, mid_step=False)
    await append(taken.writer, TextStart("t4"))
    entries = await whole(streams, third)
    kept = [Start("m1"), *FIRST_STEP] if with_checkpoint else [Start("m1")]
    assert visible_chunks(entries) == [encode(c) for c in (*kept, StartStep(), TextStart("t4"))]
    marker = the_marker(entries)
    assert marker.checkpoint == (checkpoint or StreamId(first.fence, 1))
    assert_events_of_the_dead(marker, first, second)


def assert_events_of_the_dead(marker: Marker, first: Task, second: Task) -> None:
    """Checks that the marker has each event of the first attempt once and in order, then any of the second."""
    assert list(marker.events) == sorted(set(marker.events), key=lambda event: event[:2])
    of_first = [event.kind for event in marker.events if event.fence == first.fence]
    assert of_first[-2:] == ["start-step", "text-start"]
    of_second = [event.kind for event in marker.events if event.fence == second.fence]
    assert of_second in ([], [RESET], [RESET, "text-start"])
    assert marker.dead_top.fence == second.fence


async def test_a_marker_has_the_events_of_all_attempts_since_the_checkpoint(flusher: Flusher, streams: Streams) -> None:
    first = new_task()
    await write(flusher, first, Start("m1"), *HALF_STEP)
    second = next_attempt(first)
    taken = await take_over(streams, flusher, second, mid_step=False)
    await append(taken.writer, TextStart("t3"), TextDelta("t3", "x"))
    third = next_attempt(second)
    await take_over(streams, flusher, third, mid_step=False)
    entries = await whole(streams, third)
    assert len(entries) == 3
    assert the_marker(entries).events == (
        PartEvent(first.fence, 2, "start-step", None, None),
        PartEvent(first.fence, 3, "text-start", "t2", None),
        PartEvent(second.fence, 2, RESET, None, None),
        PartEvent(second.fence, 3, "text-start", "t3", None),
    )


# --- missing and incomplete streams -------------------------------------------------------------------------------


async def test_a_missing_stream_is_started_again(redis: Redis, flusher: Flusher, streams: Streams) -> None:
    second = replace(new_task(), attempt=2, checkpoint=StreamId(7001, 6))
    taken = await take_over(streams, flusher, second, mid_step=False)
    assert taken.anew
    await append(taken.writer, Start("m1"))
    entries = await whole(streams, second)
    assert [e.body for e in entries] == [FENCE, ANEW.encode(), encode(Start("m1"))]
    assert entries[0].id == StreamId(second.fence, 1)
    assert await redis.ttl(key_of(second)) > 0


async def test_a_stream_without_its_checkpoint_is_started_again(flusher: Flusher, streams: Streams) -> None:
    """Redis was restarted with an older state, so the rest of the stream cannot be continued."""
    first = new_task()
    await write(flusher, first, Start("m1"), StartStep())
    second = next_attempt(first, StreamId(first.fence, 6))
    taken = await take_over(streams, flusher, second, mid_step=False)
    assert taken.anew
    assert [e.body for e in await whole(streams, second)] == [FENCE, ANEW.encode()]


async def test_a_stream_without_its_start_chunk_is_started_again(flusher: Flusher, streams: Streams) -> None:
    first = new_task()
    await write(flusher, first, FENCE)
    second = next_attempt(first)
    taken = await take_over(streams, flusher, second, mid_step=False)
    assert taken.anew
    assert [e.body for e in await whole(streams, second)] == [FENCE, ANEW.encode()]


@pytest.mark.parametrize("moments", range(7))
@pytest.mark.parametrize("checkpoint", [None, StreamId(7001, 6)])
@pytest.mark.parametrize("written", [(), (Start("m1"),), (Start("m1"), StartStep(), TextStart("t2"))])
async def test_a_restart_that_died_is_restarted_or_continued(
    redis: Redis,
    flusher: Flusher,
    streams: Streams,
    moments: int,
    checkpoint: StreamId | None,
    written: Sequence[Chunk],
) -> None:
    second = replace(new_task(), attempt=2, checkpoint=checkpoint)
    taken = await take_over_or_die(redis, flusher, second, moments)
    if taken is not None and written:
        await append(taken.writer, *written)
    third = next_attempt(second)
    taken = await take_over(streams, flusher, third, mid_step=False)
    if taken.anew:
        await append(taken.writer, Start("m1"), StartStep())
    entries = await whole(streams, third)
    assert visible_chunks(entries) == [encode(Start("m1")), encode(StartStep())]
    markers = [marker for _, body in entries if (marker := Marker.find(body))]
    assert markers[0].anew


async def test_an_unreachable_redis_raises_unavailable(flusher: Flusher, redis: Redis) -> None:
    class Unreachable(Streams):
        async def page(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            raise Unavailable

    with pytest.raises(Unavailable):
        await take_over(Unreachable(redis, TTL), flusher, replace(new_task(), attempt=2), mid_step=False)


# --- the end of a task delivered again ----------------------------------------------------------------------------

FINISH = Finish("stop", {"status": "completed"})


@pytest.mark.parametrize(
    ("stored", "terminal", "end"),
    [
        pytest.param((*HALF_STEP, TextEnd("t2"), FinishStep()), (FINISH,), (FINISH,), id="no part of it"),
        pytest.param((*HALF_STEP, TextEnd("t2")), (FinishStep(), FINISH), (FinishStep(), FINISH), id="an open step"),
        pytest.param(HALF_STEP, (Abort(), FINISH), (TextEnd("t2"), FinishStep(), Abort(), FINISH), id="an open part"),
        pytest.param((*FIRST_STEP, Abort()), (Abort(), FINISH), (FINISH,), id="half of it"),
        pytest.param((*FIRST_STEP, FINISH), (FINISH,), (), id="all but the end"),
        pytest.param((*FIRST_STEP, FINISH, END), (FinishStep(), FINISH), None, id="all of it"),
    ],
)
async def test_the_missing_part_of_an_end_is_added_once(
    flusher: Flusher,
    streams: Streams,
    stored: Sequence[Chunk | bytes],
    terminal: Sequence[Chunk],
    end: Sequence[Chunk] | None,
) -> None:
    task = new_task()
    await write(flusher, task, Start("m1"), *stored)
    before = await whole(streams, task)
    for _ in range(2):
        await ensure_terminal(streams, flusher, task, terminal)
        added = [entry.body for entry in (await whole(streams, task))[len(before) :]]
        assert added == ([] if end is None else [*map(encode, end), END])


async def test_an_end_written_concurrently_is_stored_once(redis: Redis, flusher: Flusher, streams: Streams) -> None:
    task = new_task()
    await write(flusher, task, Start("m1"), *HALF_STEP)
    async with Flusher(redis, ttl=TTL) as another:
        await asyncio.gather(*(ensure_terminal(streams, f, task, (FINISH,)) for f in (flusher, another, flusher)))
    bodies = [entry.body for entry in await whole(streams, task)]
    assert bodies[4:] == [*map(encode, (TextEnd("t2"), FinishStep(), FINISH)), END]


async def test_an_end_is_not_added_under_a_newer_attempt(flusher: Flusher, streams: Streams) -> None:
    first = new_task()
    await write(flusher, first, Start("m1"))
    await take_over(streams, flusher, next_attempt(first), mid_step=False)
    with pytest.raises(Fenced):
        await ensure_terminal(streams, flusher, first, (FINISH,))


async def test_a_missing_stream_gets_no_end(flusher: Flusher, streams: Streams) -> None:
    task = new_task()
    await ensure_terminal(streams, flusher, task, (FINISH,))
    assert await streams.top(key_of(task)) is None


async def test_an_attempt_that_wrote_nothing_still_ends_its_stream(flusher: Flusher, streams: Streams) -> None:
    """An attempt that only ends a task without an executor has claimed it and written nothing."""
    first = new_task()
    await write(flusher, first, Start("m1"), *HALF_STEP)
    second = next_attempt(first)
    await ensure_terminal(streams, flusher, second, (FINISH,))
    entries = await whole(streams, second)
    assert [e.id.fence for e in entries[-4:]] == [second.fence] * 4
    assert orjson.loads(entries[-2].body)["type"] == "finish"
    assert entries[-1].body == END
