from __future__ import annotations

import asyncio

import asyncpg
import pytest

from backend.chat.models import Caller, ContextPart, Task, TaskKind, TaskStatus, Turn, TurnRequest, Usage
from backend.chat.store import tasks
from backend.chat.store.task_rows import parse_request, request_json
from backend.errors import TaskNotFound
from backend.ids import SessionId, new_executor_id, new_task_id
from backend.postgres import Connection, Database
from tests.integration.rows import NOBODY, a_session, a_task, new_user
from tests.speed import limit


@pytest.mark.parametrize(
    "request_",
    [
        TurnRequest("hello"),
        TurnRequest("hi", "m-1", ContextPart("https://example.org", "text"), is_user_message=False, revises="m-0"),
        TurnRequest(None, context=ContextPart(None, None)),
    ],
)
async def test_a_task_is_read_as_it_was_written(c: Connection, request_: TurnRequest) -> None:
    user = new_user()
    session_id, task_id = await a_session(c, user), new_task_id()
    written = await tasks.insert_task(
        c,
        task_id=task_id,
        session_id=session_id,
        caller=user,
        request=request_,
        message_key="k",
        active=True,
    )
    assert written == Task(
        id=task_id,
        number=written.number,
        session_id=session_id,
        user_id=user.user_id,
        kind=TaskKind.TURN,
        status=TaskStatus.QUEUED,
        active=True,
        attempt=0,
        crashes=0,
        owner=None,
        cancel_requested=False,
        checkpoint=None,
        steps=0,
        request=request_,
        usage=Usage(),
        error=None,
        tool_name=None,
        operation_id=None,
        created_at=written.created_at,
        started_at=None,
        finished_at=None,
    )
    assert await tasks.get_task(c, task_id) == written
    assert await tasks.get_task(c, task_id, user, lock=True) == written
    assert await tasks.find_task_by_key(c, session_id, "k") == written
    assert await tasks.find_active_task(c, session_id) == written
    assert await tasks.find_tasks(c, [task_id, new_task_id()]) == [written]


def test_a_request_written_by_a_newer_version_is_read() -> None:
    request = TurnRequest("hi", "m-1", ContextPart("u", "c"), revises="m-0")
    assert parse_request({**request_json(request), "mood": "good"}) == request


def test_a_request_written_by_an_older_version_is_read() -> None:
    assert parse_request({"text": None, "message_id": None, "supersedes": 3}) == TurnRequest(None)


@pytest.mark.parametrize("lock", [False, True])
async def test_a_task_is_found_by_whoever_may_read_its_session(c: Connection, lock: bool) -> None:
    owner = new_user()
    mine = await a_task(c, await a_session(c, owner), owner)
    anonymous = await a_task(c, await a_session(c))
    assert (await tasks.get_task(c, mine.id, owner, lock=lock)).id == mine.id
    assert (await tasks.get_task(c, anonymous.id, owner, lock=lock)).id == anonymous.id
    for stranger in (new_user(), NOBODY):
        with pytest.raises(TaskNotFound):
            await tasks.get_task(c, mine.id, stranger, lock=lock)
    with pytest.raises(TaskNotFound):
        await tasks.get_task(c, new_task_id(), lock=lock)


async def test_a_session_has_one_active_task_and_a_key_is_used_once(c: Connection) -> None:
    session_id = await a_session(c)
    await a_task(c, session_id, key="k")
    with pytest.raises(asyncpg.UniqueViolationError, match="active_session_id"):
        await a_task(c, session_id)
    with pytest.raises(asyncpg.UniqueViolationError, match="message_key"):
        await a_task(c, session_id, active=False, key="k")
    assert await a_task(c, await a_session(c), key="k"), "keys are unique within a session only"


async def test_task_numbers_increase(c: Connection) -> None:
    session_id = await a_session(c)
    made = [await a_task(c, session_id, active=False) for _ in range(3)]
    assert sorted({task.number for task in made}) == [task.number for task in made]


async def test_waiting_turns_run_by_priority_and_then_in_order_of_arrival(c: Connection) -> None:
    session_id = await a_session(c)
    running = await a_task(c, session_id)
    first, second = [await a_task(c, session_id, active=False) for _ in range(2)]
    urgent = await a_task(c, session_id, active=False, priority=1)
    assert [task.id for task in await tasks.queued_tasks(c, session_id)] == [urgent.id, first.id, second.id]
    assert await tasks.activate_next(c, session_id) is None, "a turn is active"
    for expected in (urgent, first, second):
        await _end(c, await _active(c, session_id))
        activated = await tasks.activate_next(c, session_id)
        assert activated is not None
        assert (activated.id, activated.active, activated.status) == (expected.id, True, TaskStatus.QUEUED)
    await _end(c, await _active(c, session_id))
    assert await tasks.activate_next(c, session_id) is None, "no turn waits"
    assert (await tasks.get_task(c, running.id)).status is TaskStatus.COMPLETED


async def test_only_a_waiting_turn_can_get_another_request(c: Connection) -> None:
    session_id = await a_session(c)
    running, waiting = await a_task(c, session_id), await a_task(c, session_id, active=False)
    changed = await tasks.change_request(c, waiting.id, TurnRequest("another", "m-1"))
    assert changed is not None
    assert changed == await tasks.get_task(c, waiting.id)
    assert changed.request == TurnRequest("another", "m-1")
    assert await tasks.change_request(c, running.id, TurnRequest("another")) is None
    assert await tasks.change_request(c, new_task_id(), TurnRequest("another")) is None


async def _active(c: Connection, session_id: SessionId) -> Task:
    task = await tasks.find_active_task(c, session_id)
    assert task is not None
    return task


async def _end(c: Connection, task: Task) -> Task:
    claimed = await tasks.claim_task(c, task.id, new_executor_id(), seen_owner=task.owner, seen_attempt=task.attempt)
    assert claimed is not None
    return (await tasks.finish_task(c, claimed, status=TaskStatus.COMPLETED, error=None, usage=Usage())).task


async def test_turns_are_counted_per_caller(database: Database, c: Connection) -> None:
    user = new_user()
    session_id = await a_session(c, user)
    running = await a_task(c, session_id, user)
    for _ in range(2):
        await a_task(c, session_id, user, active=False)
    await a_task(c, await a_session(c, user), user)
    await a_task(c, await a_session(c), new_user())
    async with database.transaction() as counting:
        assert await tasks.count_turns(counting, user.quota_key) == (2, 2)
    await _end(c, running)
    async with database.transaction() as counting:
        assert await tasks.count_turns(counting, user.quota_key) == (1, 2)


async def test_concurrent_posts_cannot_exceed_a_quota(database: Database) -> None:
    user, quota = new_user(), 3

    async def post() -> bool:
        async with database.transaction() as c:
            session_id = await a_session(c, user)
            active, _ = await tasks.count_turns(c, user.quota_key)
            if active < quota:
                await a_task(c, session_id, user)
            return active < quota

    async with asyncio.timeout(limit(30)):
        taken = await asyncio.gather(*(post() for _ in range(12)))
    assert sum(taken) == quota


async def test_posts_of_different_callers_do_not_wait_for_each_other(database: Database) -> None:
    async with database.transaction() as one, database.transaction() as other, asyncio.timeout(limit(20)):
        await tasks.count_turns(one, Caller(None, "192.0.2.1").quota_key)
        assert await tasks.count_turns(other, Caller(None, "2001:db8::1").quota_key) == (0, 0)


async def test_an_unpublished_turn_is_found(c: Connection) -> None:
    session_id = await a_session(c)
    task = await a_task(c, session_id)
    await a_task(c, session_id, active=False)
    turn = Turn(task.id, session_id)

    async def found(older_than: float, again_after: float) -> bool:
        turns = await tasks.unpublished_tasks(c, older_than=older_than, limit=1000, again_after=again_after)
        assert {t.task_id for t in turns if t.session_id == session_id} <= {task.id}, "waiting turns are not published"
        return turn in turns

    assert await found(0, 3600)
    assert not await found(3600, 0)
    await tasks.mark_published(c, [task.id])
    assert not await found(0, 3600)
    assert await found(0, 0), "the turn was published but never claimed"
    claimed = await tasks.claim_task(c, task.id, new_executor_id(), seen_owner=None, seen_attempt=0)
    assert claimed is not None
    assert not await found(0, 0)
    assert await tasks.release_claim(c, claimed.id, claimed.owner)
    assert not await found(0, 3600), "the turn was handed back, so the broker has it"
    assert await found(0, 0)
