"""Tests of claims: a task has one owner and one answer, and writes of outdated attempts are refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from backend.chat.models import Role, Task, TaskError, TaskStatus, Usage
from backend.chat.store import messages, sessions, tasks
from backend.errors import Fenced, TaskNotFound
from backend.ids import ExecutorId, StreamId, new_executor_id, new_session_id, new_task_id
from backend.postgres import Connection, Database
from tests.integration.rows import a_claimed_task, a_session, a_task, text_message
from tests.speed import limit

USAGE = Usage(input_tokens=10, output_tokens=5, reasoning_tokens=2, cached_tokens=1)
A, B = ExecutorId("executor-a"), ExecutorId("executor-b")


async def _taken_over(c: Connection, task: Task, by: ExecutorId = B) -> Task:
    taken = await tasks.claim_task(c, task.id, by, seen_owner=task.owner, seen_attempt=task.attempt)
    assert taken is not None
    return taken


async def _completed(c: Connection, task: Task) -> Task:
    return (await tasks.finish_task(c, task, status=TaskStatus.COMPLETED, error=None, usage=Usage())).task


async def test_a_claim_starts_the_next_attempt_of_its_executor(c: Connection) -> None:
    waiting = await a_task(c, await a_session(c))
    task = await tasks.claim_task(c, waiting.id, A, seen_owner=None, seen_attempt=0)
    assert task is not None
    assert (task.status, task.owner, task.attempt, task.crashes) == (TaskStatus.RUNNING, A, 1, 0)
    assert task.started_at is not None
    assert task.fence == waiting.number * 1000 + 1
    assert task == await tasks.get_task(c, task.id)


async def test_one_of_several_concurrent_claims_wins(database: Database, c: Connection) -> None:
    task = await a_task(c, await a_session(c))

    async def claim() -> Task | None:
        async with database.connection() as mine:
            return await tasks.claim_task(mine, task.id, new_executor_id(), seen_owner=None, seen_attempt=0)

    async with asyncio.timeout(limit(30)):
        winners = [claimed for claimed in await asyncio.gather(*(claim() for _ in range(8))) if claimed is not None]
    assert [claimed.attempt for claimed in winners] == [1]
    assert await tasks.get_task(c, task.id) == winners[0]


async def test_taking_over_from_an_owner_counts_a_crash(c: Connection) -> None:
    task = await a_claimed_task(c, A)
    taken = await _taken_over(c, task)
    assert (taken.attempt, taken.crashes, taken.started_at) == (2, 1, task.started_at)
    mine_again = await _taken_over(c, taken, by=B)
    assert (mine_again.attempt, mine_again.crashes) == (3, 1), "a new attempt of the same owner is not a crash"


async def test_a_claim_based_on_an_outdated_row_is_refused(c: Connection) -> None:
    task = await a_claimed_task(c, A)
    for owner, attempt in ((None, 1), (B, 1), (A, 0), (A, 2)):
        assert await tasks.claim_task(c, task.id, B, seen_owner=owner, seen_attempt=attempt) is None
    ended = await _completed(c, task)
    assert await tasks.claim_task(c, task.id, B, seen_owner=ended.owner, seen_attempt=ended.attempt) is None


async def test_a_waiting_task_is_claimed_only_to_be_ended(c: Connection) -> None:
    session_id = await a_session(c)
    first, second = [await a_task(c, session_id, active=False) for _ in range(2)]
    assert await tasks.claim_task(c, first.id, A, seen_owner=None, seen_attempt=0) is None
    assert await tasks.claim_task(c, first.id, A, seen_owner=None, seen_attempt=0, only_active=False) is not None
    await tasks.request_cancel(c, second.id)
    requested = await tasks.claim_task(c, second.id, A, seen_owner=None, seen_attempt=0)
    assert requested is not None
    assert (await _completed(c, requested)).status is TaskStatus.CANCELLED
    assert await tasks.queued_tasks(c, session_id) == []


async def test_a_released_claim_counts_no_crash(c: Connection) -> None:
    task = await a_claimed_task(c, A)
    assert await tasks.release_claim(c, task.id, task.owner)
    assert not await tasks.release_claim(c, task.id, task.owner)
    released = await tasks.get_task(c, task.id)
    assert (released.status, released.owner, released.attempt) == (TaskStatus.RUNNING, None, 1)
    assert (await _taken_over(c, released)).crashes == 0


async def test_a_commit_moves_the_checkpoint_and_resets_crashes(c: Connection) -> None:
    task = await _taken_over(c, await a_claimed_task(c, A))
    checkpoint = StreamId(task.fence, 7)
    await tasks.commit_step(c, task, step=1, checkpoint=checkpoint, usage=USAGE)
    await tasks.commit_step(c, task, step=2, checkpoint=checkpoint, usage=Usage())
    await tasks.commit_step(c, task, step=3, checkpoint=checkpoint, usage=USAGE)
    stored = await tasks.get_task(c, task.id)
    assert stored == replace(task, steps=3, checkpoint=checkpoint, crashes=0, usage=USAGE + USAGE)


async def test_a_fenced_attempt_changes_nothing(database: Database, c: Connection) -> None:
    old = await a_claimed_task(c, A)
    new = await _taken_over(c, old)

    async def commit() -> None:
        async with database.transaction() as transaction:
            await messages.append_messages(
                transaction, old.session_id, old.id, 1, [text_message("late", Role.ASSISTANT)]
            )
            await tasks.commit_step(transaction, old, step=1, checkpoint=StreamId(old.fence, 1), usage=USAGE)

    with pytest.raises(Fenced):
        await commit()
    with pytest.raises(Fenced):
        await tasks.finish_task(c, old, status=TaskStatus.COMPLETED, error=None, usage=USAGE)
    assert not await tasks.release_claim(c, old.id, old.owner)
    assert await tasks.get_task(c, old.id) == new
    assert await messages.messages_of_task(c, old.id) == []


async def test_an_attempt_that_released_its_claim_commits_nothing(c: Connection) -> None:
    task = await a_claimed_task(c, A)
    await tasks.release_claim(c, task.id, task.owner)
    with pytest.raises(Fenced):
        await tasks.commit_step(c, task, step=1, checkpoint=StreamId(task.fence, 1), usage=USAGE)
    with pytest.raises(Fenced):
        await _completed(c, task)


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED])
async def test_a_task_ends_once(c: Connection, status: TaskStatus) -> None:
    task = await a_claimed_task(c)
    error = TaskError("provider_error", "The model is unavailable.") if status is TaskStatus.FAILED else None
    await tasks.commit_step(c, task, step=1, checkpoint=StreamId(task.fence, 3), usage=USAGE)
    ended = (await tasks.finish_task(c, task, status=status, error=error, usage=USAGE)).task
    assert (ended.status, ended.error, ended.active, ended.owner) == (status, error, False, None)
    assert ended.usage == USAGE + USAGE
    assert ended.finished_at is not None
    assert await tasks.get_task(c, task.id) == ended
    with pytest.raises(Fenced):
        await tasks.finish_task(c, task, status=TaskStatus.FAILED, error=None, usage=USAGE)
    with pytest.raises(Fenced):
        await tasks.commit_step(c, task, step=2, checkpoint=StreamId(task.fence, 9), usage=USAGE)
    assert await tasks.request_cancel(c, task.id) is None
    assert await tasks.session_usage(c, task.session_id) == USAGE + USAGE


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED])
async def test_a_requested_cancel_overrides_the_status_at_the_end(c: Connection, status: TaskStatus) -> None:
    task = await a_claimed_task(c)
    requested = await tasks.request_cancel(c, task.id)
    assert requested is not None
    assert requested.cancel_requested
    assert await tasks.request_cancel(c, task.id) == requested
    ended = (await tasks.finish_task(c, task, status=status, error=TaskError("x", "X."), usage=USAGE)).task
    assert (ended.status, ended.error) == (TaskStatus.CANCELLED, None)


async def test_a_concurrent_cancel_and_end_agree(database: Database, c: Connection) -> None:
    async def race() -> None:
        task = await a_claimed_task(c)

        async def cancel() -> Task | None:
            async with database.connection() as mine:
                return await tasks.request_cancel(mine, task.id)

        async def end() -> Task:
            async with database.connection() as mine:
                return await _completed(mine, task)

        requested, ended = await asyncio.gather(cancel(), end())
        assert (requested is not None) == (ended.status is TaskStatus.CANCELLED)

    async with asyncio.timeout(limit(30)):
        for _ in range(20):
            await race()


async def test_an_end_waits_for_a_cancel_request_in_progress(database: Database, c: Connection) -> None:
    task = await a_claimed_task(c)
    pid = c.get_server_pid()
    async with asyncio.timeout(limit(30)), asyncio.TaskGroup() as jobs, database.transaction() as cancelling:
        await tasks.request_cancel(cancelling, task.id)
        ending = jobs.create_task(_completed(c, task))
        async with database.connection() as watcher:
            while not await watcher.fetchval("SELECT cardinality(pg_blocking_pids($1))", pid):
                await asyncio.sleep(0.02)
    assert ending.result().status is TaskStatus.CANCELLED


async def test_a_task_deleted_with_its_session_is_fenced_and_not_found(database: Database, c: Connection) -> None:
    gone = await a_claimed_task(c)
    async with database.transaction() as deleting:
        await sessions.delete_session(deleting, gone.session_id)
    for task in (gone, replace(gone, id=new_task_id(), session_id=new_session_id())):
        with pytest.raises(Fenced):
            await tasks.commit_step(c, task, step=1, checkpoint=StreamId(1, 1), usage=USAGE)
        with pytest.raises(TaskNotFound):
            await tasks.get_task(c, task.id)


async def test_owners_and_their_claims_are_found(c: Connection) -> None:
    me = new_executor_id()
    mine = [await a_claimed_task(c, me) for _ in range(3)]
    await tasks.release_claim(c, mine[1].id, mine[1].owner)
    ending = await a_task(c, await a_session(c), active=False)
    claimed = await tasks.claim_task(c, ending.id, me, seen_owner=None, seen_attempt=0, only_active=False)
    assert claimed is not None
    assert me in await tasks.owners(c)
    assert {claim.turn.task_id for claim in await tasks.claims_of(c, me)} == {mine[0].id, mine[2].id, claimed.id}
