"""Cancels and deletions while something else goes wrong: they say what they know, and in time."""

from __future__ import annotations

import asyncio

import pytest

from backend.chat import cancelling, flows, sessions, tasks
from backend.chat.models import Caller, Task, TaskStatus, TurnRequest
from backend.errors import SessionNotFound
from backend.ids import SessionId, new_session_id
from backend.resources import Resources
from tests.integration.api_house import LIMIT, api_house
from tests.integration.rows import new_user
from tests.servers.redis import RedisNode
from tests.speed import limit

CANCEL_WAIT = limit(cancelling.CANCEL_WAIT)
IN_TIME = 1.7 * CANCEL_WAIT
"""Less than two waits in a row would take."""


@pytest.fixture(autouse=True)
def _wait_as_long_as_this_machine_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "CANCEL_WAIT", CANCEL_WAIT)


async def asked(house: Resources, caller: Caller, session_id: SessionId, *texts: str) -> list[Task]:
    return [
        (await flows.start_turn(house, caller, session_id, TurnRequest(text), message_key=None, create_session=True))[0]
        for text in texts
    ]


async def is_claimed(house: Resources, task: Task) -> None:
    async with asyncio.timeout(LIMIT), house.database.connection() as c:
        while (await tasks.get_task(c, task.id)).owner is None:
            await asyncio.sleep(0.02)


async def test_a_cancel_that_meets_the_deletion_of_its_session_is_answered(postgres_dsn: str, redis_dsn: str) -> None:
    async with api_house(postgres_dsn, redis_dsn, executor=False) as api:
        session_id = SessionId(await api.new_session())
        [task] = await asked(api.house, Caller(None, "192.0.2.9"), session_id, "hello")
        async with api.house.database.transaction() as c:
            await sessions.lock_session(c, session_id)
            cancelling = asyncio.create_task(api.http.post(f"/api/chat/tasks/{task.id}/cancel"))
            await is_claimed(api.house, task)
            await sessions.delete_session(c, session_id)
        answer = await cancelling
        assert (answer.status_code, answer.json()["cancelled"]) == (200, True)


async def test_a_cancel_is_answered_in_time_while_redis_is_away(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with api_house(postgres_dsn, private_redis.dsn, executor=False) as api:
        [task] = await asked(api.house, new_user(), new_session_id(), "hello")
        await private_redis.kill()
        async with asyncio.timeout(IN_TIME):
            outcome = await cancelling.cancel_task(api.house, task)
        assert outcome.cancelled
        async with api.house.database.connection() as c:
            assert (await tasks.get_task(c, task.id)).status is TaskStatus.CANCELLED


async def test_a_deletion_takes_no_longer_the_more_waits_and_succeeds_while_redis_is_away(
    postgres_dsn: str, private_redis: RedisNode
) -> None:
    async with api_house(postgres_dsn, private_redis.dsn, executor=False) as api:
        caller, session_id = new_user(), new_session_id()
        await asked(api.house, caller, session_id, "one", "two", "three", "four")
        await private_redis.kill()
        async with asyncio.timeout(IN_TIME):
            await cancelling.delete_session(api.house, caller, session_id)
        async with api.house.database.connection() as c:
            with pytest.raises(SessionNotFound):
                await sessions.get_session(c, session_id, caller)
