"""Tests of jobs that are restarted whenever they fail or return."""

from __future__ import annotations

import asyncio

import pytest

from backend.supervised import end_job, start_supervised
from tests.speed import limit


async def test_a_job_that_fails_or_returns_is_restarted_until_it_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    starts = 0
    third = asyncio.Event()

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise ValueError("a fault")
        if starts == 3:
            third.set()
            await asyncio.Event().wait()

    job = start_supervised(work, "a job", pause=0.001)
    async with asyncio.timeout(limit(20)):
        await third.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert starts == 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_nobody_waits_without_limit_for_a_job_that_does_not_end_at_its_cancel(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go_on = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await go_on.wait()

    job = asyncio.ensure_future(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(limit(20)):
        assert not await end_job(job, limit=0.01)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        go_on.set()
        assert await end_job(job)
