"""An executor whose side job has ended must not go on without it: it ends, for whoever keeps it running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from backend.chat.turns import DeadTurn, TurnQueue
from backend.config import load_settings
from backend.resources import open_resources
from executor.crew import Crew
from executor.heartbeat import Heartbeat
from executor.llm.model import open_model
from executor.tools import open_toolbox
from executor.worker import Worker
from tests.speed import limit


class _WithoutDeadLetters:
    """A queue whose dead letters end at once, or whose library cancels who waits for them."""

    def __init__(self, queue: TurnQueue, *, cancels: bool) -> None:
        self._queue = queue
        self._cancels = cancels

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    @asynccontextmanager
    async def dead_turns(self) -> AsyncIterator[AsyncIterator[DeadTurn]]:
        yield self._letters()

    async def _letters(self) -> AsyncIterator[DeadTurn]:
        if self._cancels:
            raise asyncio.CancelledError
        return
        yield


@pytest.mark.parametrize("cancels", [False, True], ids=["it returns", "it is cancelled by others"])
async def test_an_executor_ends_when_one_of_its_side_jobs_does(
    postgres_dsn: str, redis_dsn: str, *, cancels: bool
) -> None:
    settings = load_settings(
        files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", chat_provider="scripted"
    )
    async with open_resources(settings) as whole, open_model(settings) as model:
        house = replace(whole, turns=_WithoutDeadLetters(whole.turns, cancels=cancels))
        worker = Worker(house, Crew(settings, model, None, open_toolbox(settings), Heartbeat(house)))
        with pytest.raises(ExceptionGroup) as ended:
            async with asyncio.timeout(limit(30)):
                await worker.run(asyncio.Event())
    assert ended.group_contains(RuntimeError, match="a side job has ended: dead letters")
