"""Remote tasks in the store: when they are due, and which executor may ask for them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from backend.chat.models import Caller, TaskStatus
from backend.chat.outcomes import Operation, Outcome, RemoteTask, ToolWork
from backend.chat.store import operations, remote_tasks, sessions, tasks
from backend.chat.store.remote_tasks import KEPT
from backend.ids import ExecutorId, TaskId, new_executor_id
from backend.postgres import Connection, Database
from tests.integration.rows import a_session, a_task, new_user

ME, OTHER = new_executor_id(), new_executor_id()
ROOMS = {"one": 10}


@pytest.fixture(autouse=True)
async def none_stored(c: Connection) -> None:
    await c.execute("DELETE FROM remote_tasks")


async def an_operation(
    c: Connection,
    *,
    server: str = "one",
    due_in: float = -1,
    executor: ExecutorId = ME,
    user: Caller | None = None,
    runner: ExecutorId | None = None,
) -> Operation:
    user = user or new_user()
    session = await a_session(c, user)
    turn = await a_task(c, session, user)
    work = ToolWork(turn.id, "one_work", f"call-{turn.id}", {}, remote=server, runner=runner)
    operation = await operations.register(c, session, work, limit=3_600)
    assert operation.work.remote == server
    await remote_tasks.add(c, operation.task_id, RemoteTask(server, "work", "id-1"), executor, due_in=due_in)
    return operation


async def claimed(
    c: Connection, me: ExecutorId = ME, rooms: dict[str, int] = ROOMS, besides: Collection[TaskId] = ()
) -> set[TaskId]:
    return {one.task_id for one in await remote_tasks.claim_due(c, me, rooms, besides, most=32)}


async def test_due_tasks_are_claimed_within_the_room_of_each_server(c: Connection) -> None:
    due = [await an_operation(c) for _ in range(3)]
    other = await an_operation(c, server="other")
    await an_operation(c, due_in=600)
    assert await claimed(c) == {one.task_id for one in due}
    assert len(await claimed(c, rooms={"one": 2, "other": 5})) == 3
    assert await claimed(c, rooms={"other": 5}) == {other.task_id}
    assert await claimed(c, besides=[due[0].task_id, due[1].task_id]) == {due[2].task_id}
    (one,) = await remote_tasks.claim_due(c, ME, {"other": 1}, (), most=32)
    assert one.remote == RemoteTask("other", "work", "id-1")


async def test_another_executor_asks_only_when_the_first_has_died(c: Connection) -> None:
    operation = await an_operation(c, executor=OTHER)
    assert await claimed(c) == set()
    assert OTHER in await remote_tasks.executors(c)
    await remote_tasks.release_of(c, OTHER)
    assert await claimed(c) == {operation.task_id}
    assert await claimed(c, OTHER) == set()
    await remote_tasks.postpone(c, operation.task_id, OTHER, due_in=600)  # too late
    assert await claimed(c) == {operation.task_id}
    await remote_tasks.postpone(c, operation.task_id, ME, due_in=600)
    assert await claimed(c) == set()


async def test_a_task_that_has_ended_with_its_executor_is_asked_for_by_nobody_before_its_operation_has(
    c: Connection,
) -> None:
    """Another executor's own program does not know it. The model would be told `task_lost`, if that came first."""
    operation = await an_operation(c, executor=OTHER, runner=OTHER)
    await remote_tasks.release_of(c, OTHER)
    assert await claimed(c) == set()
    assert await operations.operations_run_by(c, OTHER) == [operation]
    await c.execute("UPDATE tasks SET status = 'failed' WHERE id = $1", operation.task_id)
    await remote_tasks.release_of(c, OTHER)
    assert await claimed(c) == {operation.task_id}


async def test_two_executors_never_claim_the_same_task(database: Database, c: Connection) -> None:
    for _ in range(8):
        await an_operation(c, executor=OTHER)
    await remote_tasks.release_of(c, OTHER)

    async def claim(me: ExecutorId) -> set[TaskId]:
        async with database.connection() as own:
            return await claimed(own, me)

    found = await asyncio.gather(*(claim(new_executor_id()) for _ in range(4)))
    assert sum(map(len, found)) == len(set().union(*found)) == 8


@pytest.mark.parametrize("how", ["completed", "cancelled", "cancel requested", "deleted"])
async def test_the_server_of_an_ended_operation_is_told_at_once(how: str, c: Connection) -> None:
    user = new_user()
    operation = await an_operation(c, due_in=600, user=user)
    assert await claimed(c) == set()
    if how == "deleted":
        await c.execute("DELETE FROM sessions WHERE id = $1", operation.session_id)
    elif how == "cancel requested":
        await tasks.request_cancel(c, operation.task_id)
    elif how == "cancelled":
        await operations.drop_unopened(c, operation.session_id, operation.work.turn)
    else:
        async with c.transaction():
            await sessions.lock_session(c, operation.session_id)
            assert await operations.finish_operation(c, operation, Outcome(True), {"type": "block_output"})
    assert await claimed(c) == {operation.task_id}
    await remote_tasks.postpone(c, operation.task_id, ME, due_in=600, stopping=True)
    assert await claimed(c) == set()
    await c.execute("UPDATE remote_tasks SET due_at = now()")
    assert await claimed(c) == {operation.task_id}
    await remote_tasks.forget(c, operation.task_id)
    assert await claimed(c) == set()


async def test_rows_whose_server_cannot_be_told_are_removed_in_the_end(c: Connection) -> None:
    pending, ended = await an_operation(c, due_in=-2 * KEPT), await an_operation(c, due_in=-2 * KEPT)
    recent = await an_operation(c, due_in=-1)
    for one in (ended, recent):
        await c.execute("UPDATE tasks SET status = $2 WHERE id = $1", one.task_id, TaskStatus.CANCELLED.value)
    await remote_tasks.prune(c)
    assert await claimed(c) == {pending.task_id, recent.task_id}
