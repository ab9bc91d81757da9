"""Jobs that stand as long as their process."""

from __future__ import annotations

import asyncio

import pytest

from backend.standing import start_standing
from tests.speed import limit


async def test_a_job_that_fails_or_returns_begins_again_until_it_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    begun = 0
    third = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise ValueError("a fault")
        if begun == 3:
            third.set()
            await asyncio.Event().wait()

    job = start_standing(work, "a job", pause=0.001)
    async with asyncio.timeout(limit(20)):
        await third.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert begun == 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]
