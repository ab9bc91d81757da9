"""What is noted of turns that were published."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from backend.chat import flows, tasks
from backend.chat.models import Caller, Turn, TurnRequest
from backend.chat.outbox import NOTE_WITHIN
from backend.config import load_settings
from backend.ids import new_executor_id, new_session_id
from backend.postgres import Connection, Database
from backend.resources import Resources, open_resources
from tests.speed import limit


async def _published(house: Resources) -> Turn:
    session = new_session_id()
    caller, request = Caller(None, f"test of the outbox {session}"), TurnRequest("Hello")
    task, _ = await flows.start_turn(house, caller, session, request, message_key=None, create_session=True)
    await house.outbox.publish(Turn(task.id, session))
    return Turn(task.id, session)


async def _unnoted(c: Connection) -> list[Turn]:
    return await tasks.unpublished_tasks(c, older_than=0, again_after=3600, limit=1000)


@pytest.mark.parametrize("late", [False, True])
async def test_a_late_note_does_not_hide_a_turn_that_somebody_has_taken_and_lost(
    postgres_dsn: str, redis_dsn: str, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    if not late:
        monkeypatch.setattr("backend.chat.outbox.NOTE_WITHIN", limit(60))  # however slow the machine is
    settings = load_settings(files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", db_pool_size=2)
    async with (
        asyncio.timeout(limit(30)),
        open_resources(settings) as house,
        Database.open(postgres_dsn, size=2) as others,
        others.connection() as c,
    ):
        turn = await _published(house)
        if late:
            async with AsyncExitStack() as busy:
                for _ in range(settings.db_pool_size):
                    await busy.enter_async_context(house.database.connection())
                await asyncio.sleep(NOTE_WITHIN * 1.1)  # Postgres is this slow
                claimed = await tasks.claim_new_task(c, turn.task_id, new_executor_id())
                assert claimed is not None
                await tasks.release_claims(c, claimed.owner, crashed=True)
        next_turn = await _published(house)
        while next_turn in await _unnoted(c):  # notes are written in turn
            await asyncio.sleep(0.05)
        assert (turn in await _unnoted(c)) is late
