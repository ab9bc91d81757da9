"""The deliveries of one `consume()`: what waits, what is in hand, and how the iteration ends."""

from __future__ import annotations

import asyncio

from backend.chat.turns import Intake


async def test_what_is_taken_and_not_settled_fills_the_slots() -> None:
    intake = Intake[str](2)
    for name in "abc":
        assert intake.offer(name)
    assert [await anext(intake), await anext(intake)] == ["a", "b"]
    third = asyncio.ensure_future(anext(intake))
    await asyncio.sleep(0)
    assert not third.done()
    assert intake.settle("a")
    assert await third == "c"
    assert not intake.settle("a")
    assert intake.free == 0


async def test_closing_gives_out_what_nobody_took_and_ends_every_iteration() -> None:
    intake = Intake[str](3)
    for name in "ab":
        intake.offer(name)
    assert await anext(intake) == "a"
    assert intake.close() == ["b"]
    assert not intake.offer("c")
    assert intake.withdraw() == []
    assert [await anext(intake, None) for _ in range(3)] == [None, None, None]
    assert intake.settle("a")
    await intake.emptied()


async def test_a_cancelled_taker_loses_nothing() -> None:
    intake = Intake[str](1)
    taker = asyncio.ensure_future(anext(intake))
    await asyncio.sleep(0)
    intake.offer("a")
    taker.cancel()
    await asyncio.wait({taker})
    assert await anext(intake) == "a"
