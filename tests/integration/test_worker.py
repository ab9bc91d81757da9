"""Tests that an executor ends if one of its side jobs does, so that its supervisor restarts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from backend.chat.queue.turn_queue import DeadTurn, TurnQueue
from backend.config import load_settings
from backend.resources import open_resources
from executor.heartbeat import Heartbeat
from executor.llm.models import open_models
from executor.tools import open_toolbox
from executor.turns.context import ExecutorContext
from executor.worker import Worker
from tests.speed import limit


class _WithoutDeadLetters:
    """A queue whose iteration over dead letters ends at once, or is cancelled by the library."""

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


@pytest.mark.parametrize("cancels", [False, True], ids=["it returns", "it is cancelled"])
async def test_an_executor_ends_when_one_of_its_side_jobs_ends(
    postgres_dsn: str, redis_dsn: str, *, cancels: bool
) -> None:
    settings = load_settings(
        files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", chat_provider="scripted"
    )
    async with open_resources(settings) as whole, open_models(settings) as models:
        resources = replace(whole, turn_queue=_WithoutDeadLetters(whole.turn_queue, cancels=cancels))
        worker = Worker(resources, ExecutorContext(settings, models, open_toolbox(settings), Heartbeat(resources)))
        with pytest.raises(ExceptionGroup) as ended:
            async with asyncio.timeout(limit(30)):
                await worker.run(asyncio.Event())
    assert ended.group_contains(RuntimeError, match="a side job has ended: dead letters")
