"""Tests that an executor which has nothing to do still finds every claim that is left to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backend.chat.flows import finish
from backend.chat.models import Task, TaskStatus
from backend.chat.queue.outbox import Outbox
from backend.chat.resources import Resources
from backend.chat.store import tasks
from backend.config import load_settings
from backend.errors import Unavailable
from backend.ids import ExecutorId
from backend.postgres import Connection
from backend.resources import open_resources
from executor.heartbeat import Heartbeat
from executor.llm.models import open_models
from executor.side_jobs import cancel_listener
from executor.side_jobs.cancel_listener import check_claims
from executor.tools import open_toolbox
from executor.turns.context import ExecutorContext
from executor.turns.runner import TurnRunner
from tests.integration.rows import a_claimed_task, a_session, a_task
from tests.speed import limit

LIMIT = limit(20)
NEVER = 3600.0


@pytest.fixture
async def resources(postgres_dsn: str, redis_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Resources]:
    """The connections of an executor whose checks have found nothing and rest."""
    looked = asyncio.Event()

    async def claims_of(c: Connection, owner: ExecutorId) -> list[tasks.Claim]:
        found = await real(c, owner)
        looked.set()
        return found

    real = tasks.claims_of
    monkeypatch.setattr(tasks, "claims_of", claims_of)
    monkeypatch.setattr(cancel_listener, "CHECK_EVERY", 0.02)
    monkeypatch.setattr(cancel_listener, "CHECK_AFTER", 0.0)
    monkeypatch.setattr(cancel_listener, "IDLE_CHECK_EVERY", NEVER)
    settings = load_settings(
        files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", chat_provider="scripted"
    )
    async with open_resources(settings) as opened, open_models(settings) as models:
        context = ExecutorContext(settings, models, open_toolbox(settings), Heartbeat(opened))
        checks = asyncio.create_task(check_claims(opened, TurnRunner(opened, context, None)))
        await asyncio.wait_for(looked.wait(), LIMIT)
        yield opened
        checks.cancel()
        await asyncio.gather(checks, return_exceptions=True)


async def released(resources: Resources, task: Task) -> bool:
    async with asyncio.timeout(LIMIT), resources.database.connection() as c:
        while (await tasks.get_task(c, task.id)).owner is not None:
            await asyncio.sleep(0.02)
    return True


async def test_a_claim_that_was_left_by_work_which_has_ended_is_released(resources: Resources) -> None:
    with resources.claiming.noted():
        async with resources.database.connection() as c:
            task = await a_claimed_task(c, resources.me)
    assert await released(resources, task)


async def test_a_claim_is_released_if_the_end_of_an_unowned_task_failed(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with resources.database.connection() as c:
        task = await a_task(c, await a_session(c))

    async def end_task(*_: object, **__: object) -> finish.EndedTask:
        raise Unavailable

    monkeypatch.setattr(finish, "end_task", end_task)
    with pytest.raises(Unavailable):
        await finish.end_unowned(resources, task, TaskStatus.CANCELLED)
    assert await released(resources, task)


async def test_a_claim_whose_commit_came_late_is_released(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel_listener, "IDLE_CHECK_EVERY", 0.5)
    async with resources.database.connection() as c:
        task = await a_claimed_task(c, resources.me)
    assert await released(resources, task)


async def test_a_released_turn_does_not_count_as_published_before_it_is(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executor may die between the two; the sweeper then publishes the turn without further delay."""

    async def publish(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Outbox, "publish", publish)
    with resources.claiming.noted():
        async with resources.database.connection() as c:
            task = await a_claimed_task(c, resources.me)
    assert await released(resources, task)
    async with resources.database.connection() as c:
        assert await c.fetchval("SELECT published_at FROM tasks WHERE id = $1", task.id) is None
