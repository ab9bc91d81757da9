"""Tests of turns that run in child processes."""

from __future__ import annotations

import asyncio

import pytest

from backend.chat.models import Turn
from backend.config import load_settings
from backend.ids import ExecutorId, new_executor_id, new_session_id, new_task_id
from backend.resources import open_resources
from executor.turns.processes import TurnProcesses
from tests.speed import limit


class SlowCheck(TurnProcesses):
    """Turn processes whose check of a child's heartbeat takes longer than the child lives."""

    async def _is_silent(self, me: ExecutorId) -> bool:
        for process in self._running:
            await process.wait()
        return True


async def test_a_child_process_may_end_while_its_heartbeat_is_checked(
    postgres_dsn: str, redis_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"DATABASE_URL": postgres_dsn, "REDIS_URL": redis_dsn, "QUEUE": "redis"}.items():
        monkeypatch.setenv(name, value)  # child processes read their settings from the environment
    monkeypatch.setattr("executor.turns.processes.FROZEN_AFTER", 0.0)
    monkeypatch.setattr("executor.turns.processes.CHECK_EVERY", 0.1)
    async with open_resources(load_settings(files=())) as resources, asyncio.timeout(limit(60)):
        children = SlowCheck(resources)
        assert await children.run(Turn(new_task_id(), new_session_id()), new_executor_id()), (
            "a turn without a task is settled"
        )
