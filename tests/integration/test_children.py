"""Turns that run apart, and their processes."""

from __future__ import annotations

import asyncio

import pytest

from backend.chat.models import Turn
from backend.config import load_settings
from backend.ids import ExecutorId, new_executor_id, new_session_id, new_task_id
from backend.resources import open_resources
from executor.children import Children
from tests.speed import limit


class SlowToJudge(Children):
    """Whose look at a child's heartbeat takes longer than the child lives."""

    async def _is_silent(self, me: ExecutorId) -> bool:
        for process in self._running:
            await process.wait()
        return True


async def test_a_child_may_end_while_it_is_judged(
    postgres_dsn: str, redis_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"DATABASE_URL": postgres_dsn, "REDIS_URL": redis_dsn, "QUEUE": "redis"}.items():
        monkeypatch.setenv(name, value)  # a child has its settings from there
    monkeypatch.setattr("executor.children.FROZEN_AFTER", 0.0)
    monkeypatch.setattr("executor.children.LOOK_EVERY", 0.1)
    async with open_resources(load_settings(files=())) as house, asyncio.timeout(limit(60)):
        children = SlowToJudge(house)
        assert await children.run(Turn(new_task_id(), new_session_id()), new_executor_id()), "of no task: settled"
