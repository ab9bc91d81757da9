"""Tests of the deliveries of one `consume()`: waiting ones, unsettled ones, and the end of the iteration."""

from __future__ import annotations

import asyncio

from backend.chat.queue.intake import Intake


async def test_unsettled_deliveries_occupy_slots() -> None:
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


async def test_closing_returns_the_deliveries_that_nobody_took_and_ends_iteration() -> None:
    intake = Intake[str](3)
    for name in "ab":
        intake.offer(name)
    assert await anext(intake) == "a"
    assert intake.close() == ["b"]
    assert not intake.offer("c")
    assert intake.withdraw() == []
    assert [await anext(intake, None) for _ in range(3)] == [None, None, None]
    assert intake.settle("a")
    await intake.wait_until_settled()


async def test_a_cancelled_consumer_loses_no_delivery() -> None:
    intake = Intake[str](1)
    consumer = asyncio.ensure_future(anext(intake))
    await asyncio.sleep(0)
    intake.offer("a")
    consumer.cancel()
    await asyncio.wait({consumer})
    assert await anext(intake) == "a"
