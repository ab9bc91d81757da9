"""Tests of commits whose reply is lost: what follows from them happens all the same, and pages are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest

from backend.chat.flows import start
from backend.chat.flows.complete import complete_operation
from backend.chat.flows.steering import newly_taken_in_by
from backend.chat.keys import TURNS
from backend.chat.models import (
    Caller,
    NewMessage,
    OnBusy,
    Role,
    Task,
    TaskStatus,
    TextPart,
    Turn,
    TurnRequest,
    Usage,
)
from backend.chat.outcomes import Outcome, ToolWork
from backend.chat.queue.redis_consumer import BODY
from backend.chat.queue.turn_queue import task_named_by
from backend.chat.store import messages, operations, tasks
from backend.errors import Unavailable
from backend.ids import SessionId, StreamId, TaskId, UserId, new_executor_id, new_session_id
from backend.postgres import Connection, Database
from executor.turns.commits import Commits
from tests.integration.running_api import LIMIT, RunningApi, new_id, new_user, running_api
from tests.integration.test_api_events import listening
from tests.integration.test_operations import complete


class ReplyLost:
    """A database whose next transaction is committed, but whose reply never comes, as when a connection breaks then."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loses = True

    def connection(self) -> object:
        return self._database.connection()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with self._database.transaction() as c:
            yield c
        if self._loses:
            self._loses = False
            raise Unavailable


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as running:
        yield running


async def until_queued(api: RunningApi, task_id: TaskId) -> None:
    """Waits until the queue has the turn. No executor runs, so nothing takes it, and no sweeper publishes it."""
    async with asyncio.timeout(LIMIT):
        while task_id not in {task_named_by(fields[BODY]) for _, fields in await api.resources.redis.xrange(TURNS)}:
            await asyncio.sleep(0.02)


async def ask(api: RunningApi, user: str, session: SessionId, message_id: str) -> TaskId:
    """Accepts a message as a request does whose reply is lost: nothing is published."""
    caller, request = Caller(UserId(user), "192.0.2.7"), TurnRequest("hello", message_id)
    lost = replace(api.resources, database=cast(Database, ReplyLost(api.resources.database)))
    with pytest.raises(Unavailable):
        await start.start_turn(lost, caller, session, request, message_key=message_id, create_session=True)
    async with api.resources.database.connection() as c:
        task = await tasks.find_active_task(c, session)
    assert task is not None
    return task.id


async def test_a_message_sent_again_after_a_lost_reply_is_published_and_announced(api: RunningApi) -> None:
    user, session, message_id = new_user(), new_session_id(), new_id()
    mine = api.as_user(user)
    task_id = await ask(api, user, session, message_id)
    async with listening(api, mine) as hints:
        body = {"message": "hello", "message_id": message_id}
        path = f"/api/chat/sessions/{session}/stream"
        again = asyncio.create_task(api.read("POST", path, json=body, headers=mine))
        await until_queued(api, task_id)
        await hints.until("turn-started", task_id=task_id)
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)


async def test_an_end_whose_reply_was_lost_is_announced_with_the_turn_that_follows(api: RunningApi) -> None:
    user, session = new_user(), new_session_id()
    caller = Caller(UserId(user), "192.0.2.7")
    first, second = [
        (
            await start.start_turn(
                api.resources, caller, session, TurnRequest("hi"), message_key=None, create_session=True
            )
        ).task
        for _ in range(2)
    ]
    async with api.resources.database.connection() as c:
        claimed = await tasks.claim_new_task(c, first.id, new_executor_id())
    assert claimed is not None
    me = replace(api.resources, database=cast(Database, ReplyLost(api.resources.database)))
    async with listening(api, api.as_user(user)) as hints:
        ending = await Commits(me, claimed).end(TaskStatus.COMPLETED, None, [], StreamId(claimed.fence, 1), Usage())
        await hints.until("turn-finished", task_id=first.id, status="completed")
        await hints.until("turn-started", task_id=second.id)
    assert ending.next_turn == Turn(second.id, session)


async def test_an_outcome_sent_again_after_a_lost_reply_is_published_and_announced(api: RunningApi) -> None:
    user, session = new_user(), new_session_id()
    turn = await ask(api, user, session, new_id())
    async with api.resources.database.connection() as c:
        claimed = await tasks.claim_new_task(c, turn, new_executor_id())
        assert claimed is not None
        operation = await operations.register(c, session, ToolWork(turn, "t", "call_1", {}), limit=60)
        assert await operations.open_operation(c, operation, "0-0", limit=60)
    await Commits(api.resources, claimed).end(TaskStatus.COMPLETED, None, [], StreamId(claimed.fence, 1), Usage())
    lost = replace(api.resources, database=cast(Database, ReplyLost(api.resources.database)))
    with pytest.raises(Unavailable):
        await complete_operation(lost, operation.id, Outcome(True, "done"))
    async with listening(api, api.as_user(user)) as hints:
        answer = await complete(api, operation.id, result="done")
        assert answer.json() == {"status": "ok", "task_id": operation.task_id, "replayed": True}
        await until_queued(api, operation.task_id)
        await hints.until("operation-finished", operation_id=operation.id)
        await hints.until("turn-started", task_id=operation.task_id)


@pytest.mark.parametrize("said", ["so far", ""])
async def test_a_message_taken_in_by_a_commit_whose_reply_was_lost_is_read_all_the_same(
    api: RunningApi, said: str
) -> None:
    session, caller = new_session_id(), Caller(UserId(new_user()), "192.0.2.7")

    async def send(text: str, on_busy: OnBusy = OnBusy.QUEUE) -> Task:
        request = TurnRequest(text)
        started = await start.start_turn(
            api.resources, caller, session, request, message_key=None, on_busy=on_busy, create_session=True
        )
        return started.task

    running, _ = await send("plan"), await send("faster", OnBusy.STEER)
    async with api.resources.database.connection() as c:
        claimed = await tasks.claim_new_task(c, running.id, new_executor_id())
    assert claimed is not None
    assert claimed.steered
    lost = replace(api.resources, database=cast(Database, ReplyLost(api.resources.database)))
    commits, place = Commits(lost, claimed), StreamId(claimed.fence, 1)
    new_messages = [NewMessage(Role.ASSISTANT, (TextPart(said),))] if said else []
    taken = await commits.commit_step(new_messages, place, Usage(), takes_in=True)
    assert [row.text for row in taken] == ["faster"]
    assert await commits.commit_step([], place, Usage(), takes_in=True) == []
    async with api.resources.database.connection() as c:
        rows = await messages.messages_of_task(c, running.id)
    assert [row.text for row in rows] == ["plan", *filter(None, [said]), "faster"]
    ending = await commits.end(TaskStatus.COMPLETED, None, [], place, Usage())
    assert ending.next_turn is None


async def test_a_message_taken_in_just_before_its_executor_died_is_in_the_stream_of_a_turn_that_fails_then(
    api: RunningApi,
) -> None:
    session, caller = new_session_id(), Caller(UserId(new_user()), "192.0.2.7")
    for text in ("plan", "faster"):
        await start.start_turn(
            api.resources, caller, session, TurnRequest(text),
            message_key=None, on_busy=OnBusy.STEER, create_session=True,
        )  # fmt: skip
    async with api.resources.database.connection() as c:
        running = await tasks.find_active_task(c, session)
        assert running is not None
        claimed = await tasks.claim_new_task(c, running.id, new_executor_id())
    assert claimed is not None
    commits, place = Commits(api.resources, claimed), StreamId(claimed.fence, 1)
    await commits.commit_step([NewMessage(Role.ASSISTANT, (TextPart("so far"),))], place, Usage(), takes_in=True)
    ending = await commits.end(TaskStatus.FAILED, None, [], place, Usage())
    async with api.resources.database.connection() as c:
        assert [row.text for row in await newly_taken_in_by(c, ending.task)] == ["faster"]
        [last] = await messages.visible_messages(c, session, limit=1)
        said = [NewMessage(Role.ASSISTANT, (TextPart("an answer"),))]
        await messages.append_messages(c, session, running.id, last.step + 1, said)
        assert await newly_taken_in_by(c, ending.task) == [], "an answer in the stream follows it"
