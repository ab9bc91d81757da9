"""Tests of the marks that the outbox writes for published turns."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from backend.chat.flows import start
from backend.chat.models import Caller, Turn, TurnRequest
from backend.chat.queue.outbox import NOTE_WITHIN
from backend.chat.resources import Resources
from backend.chat.store import tasks
from backend.config import load_settings
from backend.ids import new_executor_id, new_session_id
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
