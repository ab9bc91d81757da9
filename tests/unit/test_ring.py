from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from backend.chat.streams.ring import RING_BATCHES, RING_BYTES, Ring
from backend.ids import BEGINNING, StreamId, TaskId
from tests.speed import limit


def _ring() -> Ring:
    return Ring(TaskId("t"))


def _notification(fence: int, first: int, *bodies: bytes) -> bytes:
    return b"%d-%d %d-%d %b" % (fence, first, fence, first + len(bodies) - 1, b"\n".join(bodies))


def _frames_after(ring: Ring, position: StreamId) -> bytes | None:
    batches = ring.after(position)
    return None if batches is None else b"".join(batch.frames for batch in batches)


def test_an_empty_ring_serves_no_position() -> None:
    assert _ring().after(BEGINNING) is None


def test_a_ring_serves_a_position_only_if_it_has_every_entry_after_it() -> None:
    ring = _ring()
    ring.add(_notification(7001, 3, b"{c}", b"{d}"))
    ring.add(_notification(7001, 5, b"{e}"))
    assert _frames_after(ring, StreamId(7001, 2)) == (
        b"id: 7001-3\ndata: {c}\n\nid: 7001-4\ndata: {d}\n\nid: 7001-5\ndata: {e}\n\n"
    )
    assert _frames_after(ring, StreamId(7001, 4)) == b"id: 7001-5\ndata: {e}\n\n"
    assert _frames_after(ring, StreamId(7001, 5)) == b""
    assert ring.after(StreamId(7001, 1)) is None, "7001-2 was never received"
    assert ring.after(StreamId(7001, 3)) is None, "the position lies within a batch"
    assert ring.after(StreamId(6001, 9)) is None, "the position is of another attempt"


def test_a_gap_or_another_attempt_discards_the_batches_before_it() -> None:
    ring = _ring()
    ring.add(_notification(7001, 1, b"{a}"))
    ring.add(_notification(7001, 3, b"{c}"))
    assert ring.after(StreamId(7001, 1)) is None
    assert ring.after(StreamId(7001, 2)) is not None
    assert ring.after(StreamId(7001, 0)) is None, "the batch before the gap was discarded"
    ring.add(_notification(7002, 1, b"!fence"))
    assert ring.after(StreamId(7001, 2)) is None
    batches = ring.after(StreamId(7002, 0))
    assert batches is not None
    assert batches[0].entries[0].body == b"!fence"
    assert batches[0].frames == b""


def test_notifications_of_an_old_attempt_and_repeated_ones_change_nothing() -> None:
    ring = _ring()
    ring.add(_notification(7002, 1, b"{a}", b"{b}"))
    version = ring.version
    ring.add(_notification(7001, 9, b"{x}"))
    ring.add(_notification(7002, 1, b"{a}", b"{b}"))
    assert ring.version == version
    assert ring.top == StreamId(7002, 2)


@given(st.binary(max_size=40))
def test_an_invalid_notification_adds_nothing_to_the_ring(noise: bytes) -> None:
    ring = _ring()
    ring.add(noise)
    assert ring.after(BEGINNING) is None


def test_a_ring_has_a_maximum_number_of_batches_and_bytes() -> None:
    ring = _ring()
    for seq in range(1, 2000):
        ring.add(_notification(7001, seq, b"{}"))
    assert len(ring.after(StreamId(7001, 1990)) or ()) == 9
    assert ring.after(StreamId(7001, 1999 - RING_BATCHES - 1)) is None
    for seq in range(2000, 2100):
        ring.add(_notification(7001, seq, b"{%b}" % (b"x" * 10_000)))
    kept = next(seq for seq in range(2000, 2100) if ring.after(StreamId(7001, seq)) is not None)
    assert (2099 - kept) * 10_000 <= RING_BYTES


async def test_a_wait_ends_with_the_next_batch_and_a_cancelled_one_leaves_nothing_behind() -> None:
    ring = _ring()
    version = ring.version
    waiting = [asyncio.create_task(ring.news(version)) for _ in range(3)]
    await asyncio.sleep(0)
    assert ring.awaited
    waiting[0].cancel()
    await asyncio.sleep(0)
    ring.add(_notification(7001, 1, b"{}"))
    async with asyncio.timeout(limit(20)):
        await asyncio.gather(*waiting[1:])
        await ring.news(version)
    assert not ring.awaited
