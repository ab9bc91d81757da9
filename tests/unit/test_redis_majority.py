"""Tests of `majority`: what most servers say counts, and no question is left running."""

from __future__ import annotations

import asyncio

import pytest

from backend import redis_majority
from backend.errors import NoMaster
from backend.redis_majority import majority

NOBODY = "no server answers"


async def say(answer: tuple[str, int] | str) -> tuple[str, int] | str:
    return answer


async def test_the_answer_of_most_servers_counts() -> None:
    told = [("old", 1), ("new", 2), "away", ("new", 2)]
    assert await majority((say(one) for one in told), NOBODY) == ("new", 2)


async def test_more_than_half_of_all_servers_end_the_question() -> None:
    cancelled = asyncio.Event()

    async def silent() -> tuple[str, int] | str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "never"

    assert await majority([say(("new", 2)), say(("new", 2)), silent()], NOBODY) == ("new", 2)
    assert cancelled.is_set()


async def test_silent_servers_are_not_waited_for_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_majority, "FIND_LIMIT", 0.05)

    async def silent() -> tuple[str, int] | str:
        await asyncio.Event().wait()
        return "never"

    assert await majority([say(("new", 2)), silent(), silent()], NOBODY) == ("new", 2)
    with pytest.raises(NoMaster, match="no server answers: refused; the others do not answer"):
        await majority([say("refused"), silent()], NOBODY)
