"""Tests of readers across takeovers: from any cursor, a reader ends with the message that a late reader gets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.chat.models import Task
from backend.chat.protocol.chunks import (
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
from backend.chat.protocol.sse_frames import frame
from backend.errors import CursorExpired, NothingLeft, StreamCut
from backend.ids import StreamId
from executor.turns.takeover import take_over
from tests.integration.reader_rig import ReaderRig, key_of, reader_rig, until
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
async def rig(redis_dsn: str) -> AsyncIterator[ReaderRig]:
    async with reader_rig(redis_dsn) as rig:
        yield rig


async def _write(rig: ReaderRig, task: Task, chunks: Sequence[Chunk], first: int = 1) -> None:
    await rig.write(task, chunks, first=first)


async def _take_over(
    rig: ReaderRig, task: Task, checkpoint: int, rest: Sequence[Chunk], *, mid_step: bool = False
) -> Task:
    """Takes over at entry `checkpoint` of the first attempt and writes `rest`. Returns the task of the new attempt."""
    claim = replace(task, attempt=task.attempt + 1, checkpoint=StreamId(task.number * 1000 + 1, checkpoint))
    taken = await take_over(rig.streams, rig.flusher, claim, mid_step=mid_step)
    await taken.writer.append(*rest)
    if rest and rest[-1].type == "finish":
        await taken.writer.control(END)
    await taken.writer.drain()
    return claim


async def _client_at(rig: ReaderRig, task: Task, chunks: Sequence[Chunk], seen: int, *, reset: bool) -> StrictClient:
    """Returns a client that received the first `seen` chunks one by one."""
    client = StrictClient(accepts_reset=reset)
    for seq, chunk in enumerate(chunks[:seen], 1):
        client.feed(frame(StreamId(task.fence, seq), encode(chunk)))
    return client


@pytest.mark.parametrize("reset", [True, False])
async def test_a_cursor_before_a_takeover_continues_with_one_complete_step(rig: ReaderRig, reset: bool) -> None:
    task = rig.task()
    chunks = [*HEAD, *DEAD]
    await _write(rig, task, chunks)
    await _take_over(rig, task, len(HEAD), REST)
    late = await rig.read(task, StrictClient())
    assert late.text == "first. second."
    assert "reset-step" not in late.types
    for seen in range(1, len(chunks) + 1):
        client = await _client_at(rig, task, chunks, seen, reset=reset)
        await rig.read(task, client)
        assert client.done
        if seen <= len(HEAD) or reset:
            assert client.parts == late.parts, f"after {seen}"
        else:
            assert client.text.endswith("second.")
            assert [p for p in client.parts if p["type"] == "step-start"] == [{"type": "step-start"}] * 3
            assert all(p.get("state") != "tool-input-start" for p in client.parts), "a call is left open"
        assert ("reset-step" in client.types) == (reset and seen > len(HEAD))


async def test_a_client_may_reconnect_inside_the_closing_chunks(rig: ReaderRig) -> None:
    task = rig.task()
    chunks = [*HEAD, *DEAD]
    await _write(rig, task, chunks)
    await _take_over(rig, task, len(HEAD), REST)
    for seen in (len(HEAD) + 1, len(HEAD) + 6, len(HEAD) + 10, len(chunks)):
        whole = await _client_at(rig, task, chunks, seen, reset=False)
        await rig.read(task, whole)
        for step in range(1, len(whole.chunks) - seen):
            client = await _client_at(rig, task, chunks, seen, reset=False)
            while len(client.chunks) < len(whole.chunks):
                await rig.read(task, client, at_most=step)
            assert client.chunks == whole.chunks, f"seen {seen}, {step} at a time"
            assert client.ids == whole.ids
        past = StreamId(task.fence, seen | 9 << 40)
        with pytest.raises(CursorExpired):
            await rig.read(task, StrictClient(cursor=past))


@pytest.mark.parametrize("reset", [True, False])
async def test_a_live_reader_sees_the_takeover_and_the_new_attempt(rig: ReaderRig, reset: bool) -> None:
    task = rig.task()
    client = StrictClient(accepts_reset=reset)
    reading = asyncio.create_task(rig.read(task, client))
    await _write(rig, task, [*HEAD, *DEAD])

    async def all_arrived() -> bool:
        return len(client.chunks) >= len(HEAD) + len(DEAD) - 3  # deltas may have been merged

    await until(all_arrived)
    second = await _take_over(rig, task, len(HEAD), [TextStart("t2"), TextDelta("t2", "again lost")])
    third = await _take_over(rig, second, len(HEAD), REST)
    await reading
    late = await rig.read(third, StrictClient())
    assert late.text == "first. second."
    if reset:
        assert client.parts == late.parts
    assert client.text.startswith("first. ")
    assert client.text.endswith("second.")


@pytest.mark.parametrize("mid_step", [True, False])
async def test_a_reader_of_entries_that_redis_lost_is_cut_at_the_takeover(rig: ReaderRig, mid_step: bool) -> None:
    """After a failover to a lagging replica, the marker lacks the parts that the lost entries opened."""
    task = rig.task()
    client, stale_client = StrictClient(), StrictClient()
    reading = asyncio.create_task(rig.read(task, stale_client))
    await _write(rig, task, [*HEAD, *DEAD])

    async def all_arrived() -> bool:
        return bool(stale_client.ids) and stale_client.ids[-1] == StreamId(task.fence, len(HEAD) + len(DEAD))

    await until(all_arrived)
    lost = [str(StreamId(task.fence, len(HEAD) + n)) for n in range(5, len(DEAD) + 1)]
    await rig.redis.xdel(key_of(task), *lost)
    claim = await _take_over(rig, task, len(HEAD), [] if mid_step else REST, mid_step=mid_step)
    with pytest.raises(StreamCut):
        await reading
    with pytest.raises(CursorExpired):
        await rig.read(claim, stale_client)
    if not mid_step:
        await rig.read(claim, client)
        assert client.text == "first. second."


async def test_a_cursor_in_any_of_several_dead_attempts_continues(rig: ReaderRig) -> None:
    task = rig.task()
    again: list[Chunk] = [TextStart("t2"), TextDelta("t2", "again"), ToolInputStart("c9", "find")]
    await _write(rig, task, [*HEAD, *DEAD])
    second = await _take_over(rig, task, len(HEAD), again)
    marker = StreamId(second.fence, 2)
    third = await _take_over(rig, second, len(HEAD), [])
    await _take_over(rig, third, len(HEAD), REST)
    for cursor, first in [
        (StreamId(task.fence, len(HEAD)), ["start-step"]),
        (marker, ["finish-step", "start-step"]),
        (StreamId(second.fence, 4), ["text-end", "finish-step", "start-step"]),
        (StreamId(second.fence, 5), ["text-end", "tool-input-error", "finish-step", "start-step"]),
        (StreamId(second.fence, 4 | 1 << 40), ["finish-step", "start-step"]),
        (StreamId(second.fence, 4 | 2 << 40), ["start-step"]),
        (StreamId(third.fence, 2), ["finish-step", "start-step"]),
    ]:
        types = await _types_after(rig, task, cursor)
        assert types == [*first, "text-start", "text-delta", "text-end", "finish-step", "finish"], cursor
    assert await _types_after(rig, task, marker, reset=True) == ["reset-step", *[c.type for c in REST]]
    for invalid in (StreamId(task.fence, 99), StreamId(third.fence + 1, 99), StreamId(second.fence, 4 | 3 << 40)):
        if invalid.seq == 99 and invalid.fence == task.fence:
            continue  # lies within the removed entries, so it looks like a real one
        with pytest.raises(CursorExpired):
            await _types_after(rig, task, invalid)


async def _types_after(rig: ReaderRig, task: Task, cursor: StreamId, *, reset: bool = False) -> list[str]:
    client = LenientClient(accepts_reset=reset, cursor=cursor)
    await rig.read(task, client)
    return client.types


class LenientClient(StrictClient):
    """A client without checks, because it has not seen the chunks before its cursor."""

    def _apply(self, kind: str, chunk: dict[str, object]) -> None:
        pass


async def test_a_takeover_inside_a_step_is_not_shown(rig: ReaderRig) -> None:
    """The calls were committed, but not their results. The results are sent again and replace themselves."""
    task = rig.task()
    calls: list[Chunk] = [
        Start("m"),
        StartStep(),
        ToolInputAvailable("a", "find", {}),
        ToolInputAvailable("b", "find", {}),
    ]
    dead: list[Chunk] = [ToolOutputAvailable("a", 1)]
    rest: list[Chunk] = [ToolOutputAvailable("a", 1), ToolOutputAvailable("b", 2), FinishStep(), StartStep(), *REST]
    await _write(rig, task, [*calls, *dead])
    await _take_over(rig, task, len(calls), rest, mid_step=True)
    late = await rig.read(task, StrictClient())
    for seen in range(1, len(calls) + len(dead) + 1):
        client = await _client_at(rig, task, [*calls, *dead], seen, reset=seen % 2 == 0)
        await rig.read(task, client)
        assert client.parts == late.parts
        assert "reset-step" not in client.types


async def test_a_restarted_stream_is_complete_for_new_readers_and_cuts_old_ones(rig: ReaderRig) -> None:
    task = rig.task()
    await _write(rig, task, HEAD)
    client = StrictClient()
    reading = asyncio.create_task(rig.read(task, client))

    async def arrived() -> bool:
        return len(client.chunks) == len(HEAD)

    await until(arrived)
    await rig.redis.delete(key_of(task))
    await _take_over(rig, task, len(HEAD), [*HEAD, StartStep(), *REST])
    with pytest.raises(StreamCut):
        await reading
    with pytest.raises(CursorExpired):
        await rig.read(task, client)
    assert (await rig.read(task, StrictClient())).text == "first. second."


async def test_readers_see_nothing_of_an_attempt_that_died_before_it_wrote(rig: ReaderRig) -> None:
    task = rig.task()
    reading = asyncio.create_task(rig.read(task, StrictClient()))
    await rig.write(task, [b"!fence"])
    second = replace(task, attempt=2)
    taken = await take_over(rig.streams, rig.flusher, second, mid_step=False)
    assert taken.anew
    await taken.writer.append(*HEAD, StartStep(), *REST)
    await taken.writer.control(END)
    assert (await reading).types == (await rig.read(task, StrictClient())).types
    assert (await rig.read(task, StrictClient())).text == "first. second."


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9))
async def test_random_deaths_and_random_reconnects_end_in_the_same_message(rig: ReaderRig, seed: int) -> None:
    rng = random.Random(seed)
    task = rig.task()

    async def read(client: StrictClient) -> StrictClient:
        while not client.done:
            for _ in range(rng.randrange(30)):
                await asyncio.sleep(0)
            try:
                await rig.read(task, client, at_most=rng.choice([1, 2, 3, 7, 20]))
            except NothingLeft:
                client.done = True
        return client

    clients = [StrictClient(accepts_reset=n % 2 == 0) for n in range(4)]
    readings = [asyncio.create_task(read(client)) for client in clients]
    expected = await _write_with_deaths(rig, task, rng)
    async with asyncio.timeout(limit(40)):
        await asyncio.gather(*readings)
    late = await rig.read(task, StrictClient())
    assert late.text == expected
    for client in clients:
        assert client.ids == sorted(set(client.ids))
        assert client.types.count("finish") == client.types.count("start") == 1
        if client.accepts_reset:
            assert client.text == expected
        else:
            assert client.text.endswith(expected.split("|")[-2] + "|")
    assert rig.hub.following == 0


async def _write_with_deaths(rig: ReaderRig, task: Task, rng: random.Random) -> str:
    """Writes steps of words, in some of which an attempt dies. Returns the text of the complete steps."""
    writer = rig.writer(task)
    await writer.append(Start("m"))
    await writer.drain()
    checkpoint, attempt, step_open, text = None, 1, False, ""
    step = 0
    while step < 4:
        if not step_open:
            await writer.append(StartStep())
        await writer.append(TextStart(f"t{step}"))
        words = [f"{step}.{attempt}.{n} " for n in range(rng.randrange(12))] + ["|"]
        dies_at = rng.randrange(len(words)) if rng.random() < 0.4 and attempt < 8 else None
        for n, word in enumerate(words):
            if n == dies_at:
                break
            await writer.append(TextDelta(f"t{step}", word))
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
        if dies_at is not None:
            attempt += 1
            claim = replace(task, attempt=attempt, checkpoint=checkpoint)
            writer = (await take_over(rig.streams, rig.flusher, claim, mid_step=False)).writer
            step_open = True
            continue
        await writer.append(TextEnd(f"t{step}"), FinishStep())
        checkpoint, step_open = await writer.drain(), False
        text += "".join(words)
        step += 1
    await writer.append(Finish("stop", {"status": "completed"}))
    await writer.control(END)
    await writer.drain()
    return text
