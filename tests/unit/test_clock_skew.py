"""Tests of the difference between two clocks, which a request to a store measures."""

from __future__ import annotations

import asyncio
import time

import pytest

from backend.chat.leases.clock_skew import ClockSkew
from tests.speed import limit


def measure(skew: ClockSkew, ahead: float) -> None:
    with skew.measured() as reading:
        reading.clock = time.time() - ahead


@pytest.mark.parametrize(("ahead", "too_large"), [(0, False), (59, False), (61, True), (-59, False), (-7500, True)])
def test_a_difference_over_the_limit_is_too_large(ahead: float, *, too_large: bool) -> None:
    skew = ClockSkew(limit=60)
    assert not skew.too_large
    measure(skew, ahead)
    assert skew.too_large is too_large
    assert abs(skew.seconds - ahead) < 1


def test_a_limit_of_zero_is_no_limit() -> None:
    skew = ClockSkew(limit=0)
    measure(skew, 7500)
    assert not skew.too_large


def test_a_slow_answer_proves_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1000.0, 1130.0])
    monkeypatch.setattr(time, "time", lambda: next(times))
    skew = ClockSkew(limit=60)
    with skew.measured() as reading:  # the store's clock may be right: it was read at any moment of 130 s
        reading.clock = 1001.0
    assert not skew.too_large


def test_a_request_without_an_answer_changes_nothing() -> None:
    skew = ClockSkew(limit=60)
    measure(skew, 7500)
    with skew.measured():
        pass
    assert skew.too_large


async def test_a_measurement_wakes_a_waiter() -> None:
    skew = ClockSkew(limit=60)
    waiting = asyncio.create_task(skew.until(too_large=True))
    await asyncio.sleep(0)
    measure(skew, 3)
    await asyncio.sleep(0)
    assert not waiting.done()
    measure(skew, 100)
    await asyncio.wait_for(waiting, limit(5))
