"""Tests of the marks that the outbox writes for turns that it has published, or could not publish."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from backend.chat.flows import start
from backend.chat.models import Caller, Turn, TurnRequest
from backend.chat.queue.outbox import NOTE_WITHIN
from backend.chat.resources import Resources
from backend.chat.store import tasks
from backend.config import load_settings
from backend.errors import Unavailable
from backend.ids import TaskId, new_executor_id, new_session_id
from backend.postgres import Connection, Database
from backend.resources import open_resources
from tests.speed import limit


async def _published(resources: Resources) -> Turn:
    session = new_session_id()
    caller, request = Caller(None, f"test of the outbox {session}"), TurnRequest("Hello")
    started = await start.start_turn(resources, caller, session, request, message_key=None, create_session=True)
    task = started.task
    await resources.outbox.publish(Turn(task.id, session))
    return Turn(task.id, session)


async def _unmarked(c: Connection) -> list[Turn]:
    return await tasks.unpublished_tasks(c, older_than=0, again_after=3600, limit=1000)


@pytest.mark.parametrize("late", [False, True])
async def test_a_late_mark_does_not_hide_a_turn_whose_executor_crashed(
    postgres_dsn: str, redis_dsn: str, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    if not late:
        monkeypatch.setattr(
            "backend.chat.queue.outbox.NOTE_WITHIN", limit(60)
        )  # a slow machine must not make the mark late
    settings = load_settings(files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", db_pool_size=2)
    async with (
        asyncio.timeout(limit(30)),
        open_resources(settings) as resources,
        Database.open(postgres_dsn, size=2) as others,
        others.connection() as c,
    ):
        turn = await _published(resources)
        if late:
            async with AsyncExitStack() as busy:
                for _ in range(settings.db_pool_size):
                    await busy.enter_async_context(resources.database.connection())
                await asyncio.sleep(NOTE_WITHIN * 1.1)  # simulates a slow Postgres
                claimed = await tasks.claim_new_task(c, turn.task_id, new_executor_id())
                assert claimed is not None
                await tasks.release_claims(c, claimed.owner, crashed=True)
        next_turn = await _published(resources)
        while next_turn in await _unmarked(c):  # marks are written in order
            await asyncio.sleep(0.05)
        assert (turn in await _unmarked(c)) is late


async def test_the_sweeper_soon_finds_a_turn_that_cannot_be_handed_back(
    postgres_dsn: str, redis_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An executor releases its claim on a turn in hand, which counts as published, and then cannot reach the queue."""
    settings = load_settings(files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", db_pool_size=2)
    async with (
        asyncio.timeout(limit(30)),
        open_resources(settings) as resources,
        Database.open(postgres_dsn, size=2) as others,
        others.connection() as c,
    ):
        turn = await _published(resources)
        claimed = await tasks.claim_new_task(c, turn.task_id, new_executor_id())
        assert claimed is not None
        assert claimed.owner is not None
        await tasks.release_claim(c, turn.task_id, claimed.owner, in_hand=True)
        assert turn not in await _unmarked(c)

        async def away(_: object) -> None:
            raise Unavailable

        noting, marked = asyncio.Event(), tasks.mark_unpublished

        async def fails_once(c: Connection, ids: Sequence[TaskId]) -> None:
            if not noting.is_set():
                noting.set()
                raise Unavailable
            await marked(c, ids)

        monkeypatch.setattr(resources.turn_queue, "publish", away)
        monkeypatch.setattr(tasks, "mark_unpublished", fails_once)
        await resources.outbox.publish(turn)
        while turn not in await _unmarked(c):
            await asyncio.sleep(0.05)
        assert noting.is_set()
