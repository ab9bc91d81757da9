"""A reader that lives through takeovers: wherever its cursor is, it ends with the message that a late reader gets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.chat.chunks import (
    END,
    Chunk,
    Finish,
    FinishStep,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputStart,
    ToolOutputAvailable,
    encode,
)
from backend.chat.frames import frame
from backend.chat.models import Task
from backend.errors import CursorExpired, NothingLeft, StreamCut
from backend.ids import StreamId
from executor.takeover import take_over
from tests.integration.reading_room import ReadingRoom, key_of, reading_room, until
from tests.speed import limit
from tests.sse_client import StrictClient

HEAD: list[Chunk] = [
    Start("m"),
    StartStep(),
    TextStart("t1"),
    TextDelta("t1", "first. "),
    TextEnd("t1"),
    FinishStep(),
]
DEAD: list[Chunk] = [
    StartStep(),
    ReasoningStart("r2"),
    ReasoningDelta("r2", "hm"),
    ReasoningEnd("r2"),
    TextStart("t2"),
    TextDelta("t2", "los"),
    TextDelta("t2", "t"),
    ToolInputStart("c1", "find"),
    ToolInputDelta("c1", "{}"),
    ToolInputAvailable("c1", "find", {}),
    ToolInputStart("c2", "look"),
    ToolInputDelta("c2", "{"),
]
REST: list[Chunk] = [
    TextStart("t2"),
    TextDelta("t2", "second."),
    TextEnd("t2"),
    FinishStep(),
    Finish("stop", {"status": "completed"}),
]


@pytest.fixture(scope="module")
async def room(redis_dsn: str) -> AsyncIterator[ReadingRoom]:
    async with reading_room(redis_dsn) as room:
        yield room


async def _write(room: ReadingRoom, task: Task, chunks: Sequence[Chunk], first: int = 1) -> None:
    await room.write(task, chunks, first=first)


async def _take_over(
    room: ReadingRoom, task: Task, checkpoint: int, rest: Sequence[Chunk], *, mid_step: bool = False
) -> Task:
    """The next attempt: takes over at the checkpoint of the first one, and writes this."""
    claim = replace(task, attempt=task.attempt + 1, checkpoint=StreamId(task.number * 1000 + 1, checkpoint))
    taken = await take_over(room.streams, room.flusher, claim, mid_step=mid_step)
    await taken.writer.append(*rest)
    if rest and rest[-1].type == "finish":
        await taken.writer.control(END)
    await taken.writer.drain()
    return claim


async def _client_at(room: ReadingRoom, task: Task, chunks: Sequence[Chunk], seen: int, *, reset: bool) -> StrictClient:
    """A client that got so many of the chunks, one by one."""
    client = StrictClient(accepts_reset=reset)
    for seq, chunk in enumerate(chunks[:seen], 1):
        client.feed(frame(StreamId(task.fence, seq), encode(chunk)))
    return client


@pytest.mark.parametrize("reset", [True, False])
async def test_a_cursor_anywhere_before_a_takeover_goes_on_with_one_clean_step(room: ReadingRoom, reset: bool) -> None:
    task = room.task()
    chunks = [*HEAD, *DEAD]
    await _write(room, task, chunks)
    await _take_over(room, task, len(HEAD), REST)
    late = await room.read(task, StrictClient())
    assert late.text == "first. second."
    assert "reset-step" not in late.types
    for seen in range(1, len(chunks) + 1):
        client = await _client_at(room, task, chunks, seen, reset=reset)
        await room.read(task, client)
        assert client.done
        if seen <= len(HEAD) or reset:
            assert client.parts == late.parts, f"after {seen}"
        else:
            assert client.text.endswith("second.")
            assert [p for p in client.parts if p["type"] == "step-start"] == [{"type": "step-start"}] * 3
            assert all(p.get("state") != "tool-input-start" for p in client.parts), "a call left open"
        assert ("reset-step" in client.types) == (reset and seen > len(HEAD))


async def test_every_cursor_inside_the_closing_chunks_is_exact(room: ReadingRoom) -> None:
    task = room.task()
    chunks = [*HEAD, *DEAD]
    await _write(room, task, chunks)
    await _take_over(room, task, len(HEAD), REST)
    for seen in (len(HEAD) + 1, len(HEAD) + 6, len(HEAD) + 10, len(chunks)):
        whole = await _client_at(room, task, chunks, seen, reset=False)
        await room.read(task, whole)
        for step in range(1, len(whole.chunks) - seen):
            client = await _client_at(room, task, chunks, seen, reset=False)
            while len(client.chunks) < len(whole.chunks):
                await room.read(task, client, at_most=step)
            assert client.chunks == whole.chunks, f"seen {seen}, {step} at a time"
            assert client.ids == whole.ids
        past = StreamId(task.fence, seen | 9 << 40)
        with pytest.raises(CursorExpired):
            await room.read(task, StrictClient(cursor=past))


@pytest.mark.parametrize("reset", [True, False])
async def test_a_live_reader_sees_the_takeover_and_the_new_attempt(room: ReadingRoom, reset: bool) -> None:
    task = room.task()
    client = StrictClient(accepts_reset=reset)
    reading = asyncio.create_task(room.read(task, client))
    await _write(room, task, [*HEAD, *DEAD])

    async def all_there() -> bool:
        return len(client.chunks) >= len(HEAD) + len(DEAD) - 3  # deltas may have been joined

    await until(all_there)
    second = await _take_over(room, task, len(HEAD), [TextStart("t2"), TextDelta("t2", "again lost")])
    third = await _take_over(room, second, len(HEAD), REST)
    await reading
    late = await room.read(third, StrictClient())
    assert late.text == "first. second."
    if reset:
        assert client.parts == late.parts
    assert client.text.startswith("first. ")
    assert client.text.endswith("second.")


@pytest.mark.parametrize("mid_step", [True, False])
async def test_a_reader_of_entries_that_redis_lost_is_cut_at_the_takeover(room: ReadingRoom, mid_step: bool) -> None:
    """A replica that lagged took over: what was opened in the lost entries, no marker tells of."""
    task = room.task()
    client, loser = StrictClient(), StrictClient()
    reading = asyncio.create_task(room.read(task, loser))
    await _write(room, task, [*HEAD, *DEAD])

    async def all_there() -> bool:
        return bool(loser.ids) and loser.ids[-1] == StreamId(task.fence, len(HEAD) + len(DEAD))

    await until(all_there)
    lost = [str(StreamId(task.fence, len(HEAD) + n)) for n in range(5, len(DEAD) + 1)]
    await room.redis.xdel(key_of(task), *lost)
    claim = await _take_over(room, task, len(HEAD), [] if mid_step else REST, mid_step=mid_step)
    with pytest.raises(StreamCut):
        await reading
    with pytest.raises(CursorExpired):
        await room.read(claim, loser)
    if not mid_step:
        await room.read(claim, client)
        assert client.text == "first. second."


async def test_a_cursor_in_any_of_several_dead_attempts_goes_on(room: ReadingRoom) -> None:
    task = room.task()
    again: list[Chunk] = [TextStart("t2"), TextDelta("t2", "again"), ToolInputStart("c9", "find")]
    await _write(room, task, [*HEAD, *DEAD])
    second = await _take_over(room, task, len(HEAD), again)
    marker = StreamId(second.fence, 2)
    third = await _take_over(room, second, len(HEAD), [])
    await _take_over(room, third, len(HEAD), REST)
    for cursor, first in [
        (StreamId(task.fence, len(HEAD)), ["start-step"]),
        (marker, ["finish-step", "start-step"]),
        (StreamId(second.fence, 4), ["text-end", "finish-step", "start-step"]),
        (StreamId(second.fence, 5), ["text-end", "tool-input-error", "finish-step", "start-step"]),
        (StreamId(second.fence, 4 | 1 << 40), ["finish-step", "start-step"]),
        (StreamId(second.fence, 4 | 2 << 40), ["start-step"]),
        (StreamId(third.fence, 2), ["finish-step", "start-step"]),
    ]:
        types = await _types_after(room, task, cursor)
        assert types == [*first, "text-start", "text-delta", "text-end", "finish-step", "finish"], cursor
    assert await _types_after(room, task, marker, reset=True) == ["reset-step", *[c.type for c in REST]]
    for nowhere in (StreamId(task.fence, 99), StreamId(third.fence + 1, 99), StreamId(second.fence, 4 | 3 << 40)):
        if nowhere.seq == 99 and nowhere.fence == task.fence:
            continue  # lies in what was removed: cannot be told from a real one
        with pytest.raises(CursorExpired):
            await _types_after(room, task, nowhere)


async def _types_after(room: ReadingRoom, task: Task, cursor: StreamId, *, reset: bool = False) -> list[str]:
    client = _Loose(accepts_reset=reset, cursor=cursor)
    await room.read(task, client)
    return client.types


class _Loose(StrictClient):
    """Only collects: it has not seen what came before its cursor."""

    def _apply(self, kind: str, chunk: dict[str, object]) -> None:
        pass


async def test_a_takeover_inside_a_step_is_not_shown(room: ReadingRoom) -> None:
    """The model's calls were committed, their results were not: the results come again, and replace themselves."""
    task = room.task()
    calls: list[Chunk] = [
        Start("m"),
        StartStep(),
        ToolInputAvailable("a", "find", {}),
        ToolInputAvailable("b", "find", {}),
    ]
    dead: list[Chunk] = [ToolOutputAvailable("a", 1)]
    rest: list[Chunk] = [ToolOutputAvailable("a", 1), ToolOutputAvailable("b", 2), FinishStep(), StartStep(), *REST]
    await _write(room, task, [*calls, *dead])
    await _take_over(room, task, len(calls), rest, mid_step=True)
    late = await room.read(task, StrictClient())
    for seen in range(1, len(calls) + len(dead) + 1):
        client = await _client_at(room, task, [*calls, *dead], seen, reset=seen % 2 == 0)
        await room.read(task, client)
        assert client.parts == late.parts
        assert "reset-step" not in client.types


async def test_a_stream_begun_anew_is_whole_for_new_readers_and_refused_to_old_ones(room: ReadingRoom) -> None:
    task = room.task()
    await _write(room, task, HEAD)
    client = StrictClient()
    reading = asyncio.create_task(room.read(task, client))

    async def there() -> bool:
        return len(client.chunks) == len(HEAD)

    await until(there)
    await room.redis.delete(key_of(task))
    await _take_over(room, task, len(HEAD), [*HEAD, StartStep(), *REST])
    with pytest.raises(StreamCut):
        await reading
    with pytest.raises(CursorExpired):
        await room.read(task, client)
    assert (await room.read(task, StrictClient())).text == "first. second."


async def test_an_attempt_that_died_before_it_wrote_anything_is_gone_without_a_trace(room: ReadingRoom) -> None:
    task = room.task()
    reading = asyncio.create_task(room.read(task, StrictClient()))
    await room.write(task, [b"!fence"])
    second = replace(task, attempt=2)
    taken = await take_over(room.streams, room.flusher, second, mid_step=False)
    assert taken.anew
    await taken.writer.append(*HEAD, StartStep(), *REST)
    await taken.writer.control(END)
    assert (await reading).types == (await room.read(task, StrictClient())).types
    assert (await room.read(task, StrictClient())).text == "first. second."


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9))
async def test_random_deaths_and_random_reconnects_end_in_the_same_message(room: ReadingRoom, seed: int) -> None:
    chance = random.Random(seed)
    task = room.task()

    async def read(client: StrictClient) -> StrictClient:
        while not client.done:
            for _ in range(chance.randrange(30)):
                await asyncio.sleep(0)
            try:
                await room.read(task, client, at_most=chance.choice([1, 2, 3, 7, 20]))
            except NothingLeft:
                client.done = True
        return client

    clients = [StrictClient(accepts_reset=n % 2 == 0) for n in range(4)]
    readings = [asyncio.create_task(read(client)) for client in clients]
    expected = await _write_with_deaths(room, task, chance)
    async with asyncio.timeout(limit(40)):
        await asyncio.gather(*readings)
    late = await room.read(task, StrictClient())
    assert late.text == expected
    for client in clients:
        assert client.ids == sorted(set(client.ids))
        assert client.types.count("finish") == client.types.count("start") == 1
        if client.accepts_reset:
            assert client.text == expected
        else:
            assert client.text.endswith(expected.split("|")[-2] + "|")
    assert room.hub.following == 0


async def _write_with_deaths(room: ReadingRoom, task: Task, chance: random.Random) -> str:
    """Steps of words; now and then the attempt dies in the middle of one. The text that counts."""
    writer = room.writer(task)
    await writer.append(Start("m"))
    await writer.drain()
    checkpoint, attempt, begun, said = None, 1, False, ""
    step = 0
    while step < 4:
        if not begun:
            await writer.append(StartStep())
        await writer.append(TextStart(f"t{step}"))
        words = [f"{step}.{attempt}.{n} " for n in range(chance.randrange(12))] + ["|"]
        dies_at = chance.randrange(len(words)) if chance.random() < 0.4 and attempt < 8 else None
        for n, word in enumerate(words):
            if n == dies_at:
                break
            await writer.append(TextDelta(f"t{step}", word))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        if dies_at is not None:
            attempt += 1
            claim = replace(task, attempt=attempt, checkpoint=checkpoint)
            writer = (await take_over(room.streams, room.flusher, claim, mid_step=False)).writer
            begun = True
            continue
        await writer.append(TextEnd(f"t{step}"), FinishStep())
        checkpoint, begun = await writer.drain(), False
        said += "".join(words)
        step += 1
    await writer.append(Finish("stop", {"status": "completed"}))
    await writer.control(END)
    await writer.drain()
    return said
