"""Tests that cancels and deletions are answered in time while something else fails."""

from __future__ import annotations

import asyncio

import pytest

from backend.chat.flows import cancel, delete, finish, start
from backend.chat.models import Caller, Task, TaskStatus, TurnRequest
from backend.chat.resources import Resources
from backend.chat.store import sessions, tasks
from backend.errors import SessionNotFound
from backend.ids import SessionId, new_executor_id, new_session_id
from tests.integration.rows import new_user
from tests.integration.running_api import LIMIT, running_api
from tests.servers.redis import RedisNode
from tests.speed import limit

CANCEL_WAIT = limit(cancel.CANCEL_WAIT)
IN_TIME = 1.7 * CANCEL_WAIT
"""A limit in seconds, below the time of two waits in a row."""


@pytest.fixture(autouse=True)
def _scaled_cancel_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "CANCEL_WAIT", CANCEL_WAIT)


async def start_turns(resources: Resources, caller: Caller, session_id: SessionId, *texts: str) -> list[Task]:
    return [
        (
            await start.start_turn(
                resources, caller, session_id, TurnRequest(text), message_key=None, create_session=True
            )
        ).task
        for text in texts
    ]


async def wait_until_claimed(resources: Resources, task: Task) -> None:
    async with asyncio.timeout(LIMIT), resources.database.connection() as c:
        while (await tasks.get_task(c, task.id)).owner is None:
            await asyncio.sleep(0.02)


async def test_a_cancel_during_the_deletion_of_its_session_is_answered(postgres_dsn: str, redis_dsn: str) -> None:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        session_id = SessionId(await api.new_session())
        [task] = await start_turns(api.resources, Caller(None, "192.0.2.9"), session_id, "hello")
        async with api.resources.database.transaction() as c:
            await sessions.lock_session(c, session_id)
            cancelling = asyncio.create_task(api.http.post(f"/api/chat/tasks/{task.id}/cancel"))
            await wait_until_claimed(api.resources, task)
            await sessions.delete_session(c, session_id)
        answer = await cancelling
        assert (answer.status_code, answer.json()["cancelled"]) == (200, True)


async def test_a_cancel_is_answered_in_time_while_redis_is_unavailable(
    postgres_dsn: str, private_redis: RedisNode
) -> None:
    async with running_api(postgres_dsn, private_redis.dsn, executor=False) as api:
        [task] = await start_turns(api.resources, new_user(), new_session_id(), "hello")
        await private_redis.kill()
        async with asyncio.timeout(IN_TIME):
            outcome = await cancel.cancel_task(api.resources, task)
        assert outcome.cancelled
        async with api.resources.database.connection() as c:
            assert (await tasks.get_task(c, task.id)).status is TaskStatus.CANCELLED


async def test_a_deletion_with_many_waiting_turns_succeeds_in_time_while_redis_is_unavailable(
    postgres_dsn: str, private_redis: RedisNode
) -> None:
    async with running_api(postgres_dsn, private_redis.dsn, executor=False) as api:
        caller, session_id = new_user(), new_session_id()
        await start_turns(api.resources, caller, session_id, "one", "two", "three", "four")
        await private_redis.kill()
        async with asyncio.timeout(IN_TIME):
            await delete.delete_session(api.resources, caller, session_id)
        async with api.resources.database.connection() as c:
            with pytest.raises(SessionNotFound):
                await sessions.get_session(c, session_id, caller)


async def test_a_deletion_of_a_user_waits_once_for_all_that_runs(postgres_dsn: str, redis_dsn: str) -> None:
    many = 2 * delete.AT_ONCE + 1
    async with running_api(postgres_dsn, redis_dsn, executor=False, max_running_turns=many) as api:
        caller = new_user()
        session_ids = [new_session_id() for _ in range(many)]
        for session_id in session_ids:
            [task] = await start_turns(api.resources, caller, session_id, "hello")
            async with api.resources.database.connection() as c:
                assert await tasks.claim_new_task(c, task.id, new_executor_id()) is not None  # it never ends it
        assert caller.user_id is not None
        async with asyncio.timeout(IN_TIME):
            await delete.delete_user(api.resources, caller, caller.user_id)
        async with api.resources.database.connection() as c:
            assert await sessions.sessions_of(c, caller.user_id, 1) == []


async def test_a_turn_that_is_accepted_during_a_deletion_is_cancelled_too(postgres_dsn: str, redis_dsn: str) -> None:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        resources, caller, session_id = api.resources, new_user(), new_session_id()
        [first] = await start_turns(resources, caller, session_id, "hello")
        async with resources.database.connection() as c:
            claimed = await tasks.claim_new_task(c, first.id, new_executor_id())
        assert claimed is not None
        async with resources.turn_queue.cancel_requests() as requests, asyncio.timeout(LIMIT):
            deleting = asyncio.create_task(delete.delete_session(resources, caller, session_id))
            assert await anext(requests) == first.id
            [second] = await start_turns(resources, caller, session_id, "again")
            ending = await finish.end_task(resources, claimed, status=TaskStatus.COMPLETED)
            assert ending.next_turn is not None
            async with resources.database.connection() as c:
                assert await tasks.claim_new_task(c, second.id, new_executor_id()) is not None
            assert await anext(requests) == second.id
            await deleting
        async with resources.database.connection() as c:
            assert await tasks.find_tasks(c, [first.id, second.id]) == []
