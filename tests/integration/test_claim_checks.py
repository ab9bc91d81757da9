"""Tests that an executor which has nothing to do still finds every claim that is left to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from backend.chat.flows import finish
from backend.chat.models import Task, TaskStatus, Turn
from backend.chat.queue.outbox import Outbox
from backend.chat.resources import Resources
from backend.chat.store import tasks
from backend.config import load_settings
from backend.errors import Unavailable
from backend.ids import ExecutorId, TaskId, new_task_id
from backend.postgres import Connection
from backend.resources import open_resources
from executor import heartbeat
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


@dataclass(frozen=True)
class Executor:
    """An executor that checks its claims and takes no turns. `looked` is set by each check."""

    resources: Resources
    runner: TurnRunner
    looked: asyncio.Event


@pytest.fixture
async def executor(postgres_dsn: str, redis_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Executor]:
    """An executor whose checks have found nothing and rest."""
    looked = asyncio.Event()

    async def claims_of(c: Connection, owner: ExecutorId) -> list[tasks.Claim]:
        found = await real(c, owner)
        looked.set()
        return found

    real = tasks.claims_of
    monkeypatch.setattr(tasks, "claims_of", claims_of)
    monkeypatch.setattr(cancel_listener, "CHECK_EVERY", 0.02)
    monkeypatch.setattr(cancel_listener, "CHECK_AFTER", 0.0)
    monkeypatch.setattr(heartbeat, "ROW_EVERY", 0.1)
    settings = load_settings(
        files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", chat_provider="scripted"
    )
    async with open_resources(settings) as opened, open_models(settings) as models:
        context = ExecutorContext(settings, models, open_toolbox(settings), Heartbeat(opened))
        runner = TurnRunner(opened, context, None)
        await context.heartbeat.begin()
        jobs = [asyncio.create_task(context.heartbeat.run()), asyncio.create_task(check_claims(opened, runner))]
        await asyncio.wait_for(looked.wait(), LIMIT)
        yield Executor(opened, runner, looked)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


@pytest.fixture
def resources(executor: Executor) -> Resources:
    return executor.resources


async def released(resources: Resources, task: Task) -> bool:
    async with asyncio.timeout(LIMIT), resources.database.connection() as c:
        while (await tasks.get_task(c, task.id)).owner is not None:
            await asyncio.sleep(0.02)
    return True


async def test_a_claim_that_was_left_by_work_which_has_ended_is_released(resources: Resources) -> None:
    with resources.claiming.noted(new_task_id()):
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


async def test_a_claim_whose_commit_came_late_is_found_by_the_heartbeat(resources: Resources) -> None:
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
    with resources.claiming.noted(new_task_id()):
        async with resources.database.connection() as c:
            task = await a_claimed_task(c, resources.me)
    assert await released(resources, task)
    async with resources.database.connection() as c:
        assert await c.fetchval("SELECT published_at FROM tasks WHERE id = $1", task.id) is None


@pytest.mark.parametrize("attempts", [0, 1])
async def test_a_claim_whose_attempt_is_about_to_start_stands(
    executor: Executor, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    """A busy event loop, or a pool without a free connection, may take seconds from the claim to the attempt."""
    resources, turn_runner, looked = executor.resources, executor.runner, executor.looked
    claimed, start = asyncio.Event(), asyncio.Event()
    real_new, real_next = tasks.claim_new_task, tasks.claim_task

    async def claim_new_task(c: Connection, task_id: TaskId, executor_id: ExecutorId) -> Task | None:
        return await slowly(await real_new(c, task_id, executor_id))

    async def claim_task(*args: Any, **seen: Any) -> Task | None:
        return await slowly(await real_next(*args, **seen))

    async def slowly(task: Task | None) -> Task | None:
        if task is not None:
            claimed.set()
            await start.wait()
        return task

    async with resources.database.connection() as c:
        task = await a_task(c, await a_session(c))
        if attempts:
            await real_new(c, task.id, resources.me)
            await tasks.release_claim(c, task.id, resources.me)
    monkeypatch.setattr(tasks, "claim_new_task", claim_new_task)
    monkeypatch.setattr(tasks, "claim_task", claim_task)
    run = asyncio.create_task(turn_runner.run(Turn(task.id, task.session_id)))
    await asyncio.wait_for(claimed.wait(), LIMIT)
    for _ in range(4):
        looked.clear()
        await asyncio.wait_for(looked.wait(), LIMIT)
    async with resources.database.connection() as c:
        assert (await tasks.get_task(c, task.id)).owner == resources.me
    second = turn_runner.run(Turn(task.id, task.session_id))  # the same turn delivered once more
    await asyncio.wait_for(second, LIMIT)
    start.set()
    await asyncio.wait_for(run, LIMIT)
    async with resources.database.connection() as c:
        ended = await tasks.get_task(c, task.id)
    assert (ended.status, ended.attempt) == (TaskStatus.COMPLETED, attempts + 1)
