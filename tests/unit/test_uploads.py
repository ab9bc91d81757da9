"""Room for files that arrive: shared by callers, and not held by those who send slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from backend.api import uploads
from backend.api.uploads import AT_ONCE, LARGE_AT_ONCE, LARGE_OF_ONE, OF_ONE, Uploads
from backend.errors import RequestTimeout, ServerBusy
from tests.speed import limit


def begun(stack: ExitStack, room: Uploads, caller: str, most: int = 100) -> int:
    """Begins uploads until one is refused. Returns their number."""
    for number in range(most):
        try:
            stack.enter_context(room.one(caller))
        except ServerBusy:
            return number
    return most


def test_a_caller_gets_fewer_places_while_few_are_left() -> None:
    room = Uploads(1_000)
    with ExitStack() as stack:
        given = [begun(stack, room, f"user{number}") for number in range(AT_ONCE)]
    assert given[0] == OF_ONE
    assert given[-10] <= 1
    assert sum(count > 0 for count in given) > AT_ONCE // OF_ONE + 5
    with ExitStack() as stack:
        assert begun(stack, room, "user0") == OF_ONE  # all places are free again


def test_bytes_are_shared_too() -> None:
    room = Uploads(1_000)
    with ExitStack() as stack:
        mine = [stack.enter_context(room.one("mine")) for _ in range(LARGE_OF_ONE + 1)]
        for one in mine[:-1]:
            one.take(1_000)
        with pytest.raises(ServerBusy):
            mine[-1].take(1)
        for number in range(LARGE_AT_ONCE - LARGE_OF_ONE):
            stack.enter_context(room.one(f"user{number}")).take(1_000)
        with pytest.raises(ServerBusy), room.one("late") as late:
            late.take(1)
    with room.one("mine") as again:
        again.take(1_000)


async def test_a_slow_upload_ends_and_a_steady_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "GRACE", 0.2)
    monkeypatch.setattr(uploads, "LEAST_SPEED", 100)
    room, silence = Uploads(1_000_000), asyncio.Event()

    async def body(pieces: int) -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield b"x" * 100_000
        if pieces == 0:
            await silence.wait()

    async with asyncio.timeout(limit(20)):
        with room.one("steady") as arriving:
            assert [len(piece) async for piece in arriving.counted(body(3))] == [100_000] * 3
        with pytest.raises(RequestTimeout), room.one("slow") as arriving:
            async for _ in arriving.counted(body(0)):
                pass
        monkeypatch.setattr(uploads, "WITHIN", 0)
        with pytest.raises(RequestTimeout), room.one("long") as arriving:
            async for _ in arriving.counted(body(0)):
                pass
