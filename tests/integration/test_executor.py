"""Tests of an executor when something fails around a turn, in one process and over real stores."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest

from backend.chat.flows import finish, start
from backend.chat.keys import TURNS, lock_key, stream_key
from backend.chat.leases.locks import Holder
from backend.chat.models import (
    Caller,
    Message,
    ModelChoice,
    NewMessage,
    Role,
    Task,
    TaskStatus,
    TextPart,
    Turn,
    TurnRequest,
)
from backend.chat.outcomes import Operation
from backend.chat.protocol.chunks import FENCE, Start, StartStep, TextDelta, TextStart
from backend.chat.queue.redis_consumer import BODY
from backend.chat.queue.turn_queue import task_named_by
from backend.chat.resources import Resources
from backend.chat.store import messages, sessions, tasks
from backend.chat.store.instructions import Instructions
from backend.chat.streams.reader import attach
from backend.config import Settings, load_settings
from backend.errors import CursorExpired, StreamCut
from backend.ids import ExecutorId, SessionId, StreamId, TaskId, fence_of, new_executor_id, new_session_id
from backend.resources import open_resources
from executor.agent.agent import Agent
from executor.agent.calls import ToolHost
from executor.heartbeat import Heartbeat
from executor.llm.models import open_models
from executor.side_jobs.sweeper import SWEEP_EVERY, Sweeper
from executor.tools import open_toolbox
from executor.turns.context import ExecutorContext
from executor.worker import Worker
from tests.e2e.sse import PACE, words_for
from tests.integration.rows import a_session, a_task, new_user, text_message
from tests.servers.redis import RedisNode
from tests.speed import limit
from tests.sse_client import StrictClient

LIMIT = limit(30)
WORDS = words_for(2)
CALLER = Caller(None, f"tests of the executor {os.getpid()}")


@dataclass(frozen=True, slots=True)
class ApiSide:
    """The side of the API: starts turns, reads their streams, and has the settings for executors."""

    resources: Resources
    settings: Settings

    async def ask(self, text: str, session_id: SessionId, *, publish: bool = True) -> Task:
        request = TurnRequest(text)
        started = await start.start_turn(
            self.resources, CALLER, session_id, request, message_key=None, create_session=True
        )
        task = started.task
        if publish and task.active:
            await self.resources.outbox.publish(Turn(task.id, session_id))
        return task

    async def read(self, task: Task, cursor: StreamId | None = None, *, until: str | None = None) -> StrictClient:
        """Reads to the end, or until the text contains `until`."""
        client = StrictClient()
        blocks = await attach(
            self.resources.hub, self.resources.streams, task, cursor, accepts=frozenset(), messages_of=self._messages_of
        )
        async with asyncio.timeout(LIMIT), aclosing(blocks):
            async for block in blocks:
                client.feed(block)
                if until is not None and until in client.text:
                    break
        return client

    async def _messages_of(self, task_id: TaskId) -> Sequence[Message]:
        async with self.resources.database.connection() as c:
            return await messages.messages_of_task(c, task_id)

    async def row(self, task: Task) -> Task:
        async with self.resources.database.connection() as c:
            return await tasks.get_task(c, task.id)

    async def ended(self, task: Task) -> Task:
        async with asyncio.timeout(LIMIT):
            while not (row := await self.row(task)).status.ended:
                await asyncio.sleep(0.02)
        return row

    async def answer(self, task: Task) -> str:
        rows = await self._messages_of(task.id)
        return "".join(row.text for row in rows if row.role is Role.ASSISTANT)


@pytest.fixture
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[ApiSide]:
    settings = load_settings(
        files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", shutdown_grace=0.1
    )
    async with open_resources(settings) as resources:
        yield ApiSide(resources, settings)


class FaultyContext(ExecutorContext):
    """A context in which every attempt raises an unexpected exception."""

    def agent(
        self, task: Task, host: ToolHost, operation: Operation | None, choice: ModelChoice, told: Instructions
    ) -> Agent:
        raise RuntimeError("a fault in the code")


@asynccontextmanager
async def working(
    settings: Settings, context_type: type[ExecutorContext] = ExecutorContext
) -> AsyncIterator[Resources]:
    """Runs an executor during the block, and then stops it as SIGTERM would."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(open_resources(settings))
        models = await stack.enter_async_context(open_models(settings))
        context = context_type(settings, models, open_toolbox(settings), Heartbeat(resources))
        job = asyncio.create_task(Worker(resources, context).run(stop))
        try:
            yield resources
        finally:
            stop.set()
            await asyncio.wait_for(job, LIMIT)


def numbers(n: int) -> str:
    return "".join(f"{i} " for i in range(n))


async def test_the_sweeper_finds_a_turn_that_was_never_published(api: ApiSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.side_jobs.sweeper.UNPUBLISHED_AFTER", 0.2)
    task = await api.ask("/stream 3", new_session_id(), publish=False)
    async with working(api.settings):
        assert (await api.ended(task)).status is TaskStatus.COMPLETED


async def test_a_turn_whose_stream_is_lost_starts_again_and_its_text_is_exact(
    api: ApiSide,
) -> None:
    session_id = new_session_id()
    async with working(api.settings):
        task = await api.ask(f"/stream {WORDS} {PACE}", session_id)
        await api.read(task, until="20 ")
        await api.resources.streams.delete(stream_key(session_id, task.id))
        row = await api.ended(task)
        again = await api.read(row)
    assert row.status is TaskStatus.COMPLETED
    assert row.crashes == 0
    assert row.attempt > 1
    assert again.text == numbers(WORDS)
    assert await api.answer(task) == numbers(WORDS)


async def test_a_reader_of_a_lost_stream_is_cut_and_cannot_resume(api: ApiSide) -> None:
    session_id = new_session_id()
    async with working(api.settings):
        task = await api.ask(f"/stream {WORDS} {PACE}", session_id)
        seen = await api.read(task, until="20 ")
        await api.resources.streams.delete(stream_key(session_id, task.id))
        with pytest.raises((CursorExpired, StreamCut)):
            await api.read(task, seen.cursor)
        await api.ended(task)


async def test_a_task_that_crashed_too_often_fails_with_an_error(api: ApiSide) -> None:
    session_id = new_session_id()
    task = await api.ask("/stream 3", session_id, publish=False)
    for _ in range(api.settings.max_crashes + 1):
        row = await api.row(task)
        async with api.resources.database.connection() as c:
            await tasks.claim_task(c, task.id, new_executor_id(), seen_owner=row.owner, seen_attempt=row.attempt)
    async with working(api.settings):
        await api.resources.outbox.publish(Turn(task.id, session_id))
        row = await api.ended(task)
        seen = await api.read(row)
    assert row.status is TaskStatus.FAILED
    assert row.error is not None
    assert row.error.code == "crashed"
    assert seen.types[-1] == "finish"


async def test_an_unexpected_exception_fails_the_turn_at_its_first_attempt(api: ApiSide) -> None:
    session_id = new_session_id()
    async with working(api.settings, FaultyContext):
        task = await api.ask("/stream 3", session_id)
        row = await api.ended(task)
        seen = await api.read(row)
    assert (row.status, row.attempt) == (TaskStatus.FAILED, 1)
    assert row.error is not None
    assert row.error.code == "internal_error"
    assert seen.types[-1] == "finish"


@pytest.mark.parametrize("store", ["stream", "messages"])
async def test_a_fenced_attempt_whose_claim_stands_is_tried_three_times(api: ApiSide, store: str) -> None:
    task = await api.ask("/stream 3", new_session_id(), publish=False)
    if store == "stream":
        key = stream_key(task.session_id, task.id)
        writer = api.resources.flusher.writer(key, fence_of(task.number, 500), create=True)
        await writer.control(FENCE)
        await writer.drain()
    else:
        async with api.resources.database.connection() as c:
            left = NewMessage(Role.ASSISTANT, (TextPart("of another database"),))
            await messages.append_messages(c, task.session_id, task.id, 1, [left])
    await api.resources.outbox.publish(Turn(task.id, task.session_id))
    async with working(api.settings):
        row = await api.ended(task)
    assert row.error is not None
    assert (row.error.code, row.attempt) == ("internal_error", 3)


async def test_a_turn_past_its_timeout_is_not_started_again(api: ApiSide) -> None:
    task = await api.ask("/stream 3", new_session_id())
    settings = api.settings.model_copy(update={"turn_timeout": 0.0})
    async with working(settings):
        row = await api.ended(task)
    assert row.error is not None
    assert row.error.code == "turn_timeout"


async def test_messages_of_which_an_older_version_did_not_tell_come_into_the_search(api: ApiSide) -> None:
    caller = new_user()
    async with api.resources.database.transaction() as c:
        session = await a_session(c, caller)
        task = await a_task(c, session, caller)
        await messages.append_messages(c, session, task.id, 0, [text_message("a turnstone")])
        await c.execute("UPDATE tasks SET status = 'completed' WHERE id = $1", task.id)
        await c.execute("UPDATE sessions SET unsearched_since = NULL WHERE id = $1", session)
    sweeping = asyncio.create_task(Sweeper(api.resources).run())
    async with api.resources.database.connection() as c, asyncio.timeout(LIMIT):
        while await c.fetchval("SELECT searched_sequence FROM sessions WHERE id = $1", session) < 1:
            await asyncio.sleep(0.05)  # between two looks of a bounded wait
    sweeping.cancel()


async def test_the_turns_of_a_dead_executor_are_published_once(api: ApiSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.side_jobs.sweeper.UNPUBLISHED_AFTER", limit(60))  # nobody takes them meanwhile
    resources, dead = api.resources, new_executor_id()
    orphans = [await api.ask("/stream 3", new_session_id(), publish=False) for _ in range(3)]
    async with resources.database.connection() as c:
        for task in orphans:
            await tasks.claim_new_task(c, task.id, dead)
    beating = asyncio.create_task(Heartbeat(resources).run())  # an executor without a heartbeat judges no other
    sweeping = asyncio.create_task(Sweeper(resources).run())
    async with asyncio.timeout(LIMIT):
        while [task for task in orphans if (await api.row(task)).owner is not None]:
            await asyncio.sleep(0.05)
        for _ in range(2):  # two more sweeps
            await asyncio.sleep(SWEEP_EVERY)
    sweeping.cancel()
    beating.cancel()
    queued = [task_named_by(fields[BODY]) for _, fields in await resources.redis.xrange(TURNS)]
    assert [queued.count(task.id) for task in orphans] == [1, 1, 1]
    assert {(await api.row(task)).crashes for task in orphans} == {1}
    async with working(api.settings):
        for task in orphans:
            assert (await api.ended(task)).status is TaskStatus.COMPLETED


async def test_a_running_turn_survives_an_outage_of_redis_longer_than_its_leases(
    postgres_dsn: str, private_redis: RedisNode
) -> None:
    settings = load_settings(
        files=(), database_url=postgres_dsn, redis_url=private_redis.dsn, queue="redis", session_lock_ttl=2
    )
    async with open_resources(settings) as resources, working(settings):
        api = ApiSide(resources, settings)
        task = await api.ask("/stream 200 20", new_session_id())
        await api.read(task, until="10 ")
        await private_redis.kill()
        await asyncio.sleep(settings.session_lock_ttl)
        await private_redis.start()
        row = await api.ended(task)
        assert row.status is TaskStatus.COMPLETED
        assert await api.answer(task) == numbers(200)
        assert (await api.read(row)).text == numbers(200)


async def test_a_stopping_executor_hands_back_its_turn_without_counting_a_crash(api: ApiSide) -> None:
    session_id = new_session_id()
    async with working(api.settings):
        task = await api.ask(f"/stream {WORDS} {PACE}", session_id)
        await api.read(task, until="5 ")
    row = await api.row(task)
    assert (row.status, row.owner, row.crashes) == (TaskStatus.RUNNING, None, 0)
    async with working(api.settings):
        row = await api.ended(task)
    assert (row.attempt, row.crashes) == (2, 0)
    assert await api.answer(task) == numbers(WORDS)


async def test_another_delivery_of_a_running_turn_changes_nothing(api: ApiSide) -> None:
    session_id = new_session_id()
    async with working(api.settings), working(api.settings):
        task = await api.ask("/stream 60 10", session_id)
        await api.read(task, until="5 ")
        for _ in range(3):
            await api.resources.turn_queue.publish(Turn(task.id, session_id))
        row = await api.ended(task)
    assert row.attempt == 1
    assert await api.answer(task) == numbers(60)


async def test_the_last_chunks_are_added_if_the_executor_died_after_ending_the_task(api: ApiSide) -> None:
    session_id, resources = new_session_id(), api.resources
    task = await api.ask("hello", session_id, publish=False)
    async with resources.database.connection() as c:
        claimed = await tasks.claim_task(c, task.id, new_executor_id(), seen_owner=None, seen_attempt=0)
    assert claimed is not None
    writer = resources.flusher.writer(stream_key(session_id, task.id), claimed.fence, create=True)
    await writer.append(Start(task.message_id), StartStep(), TextStart("t1"), TextDelta("t1", "hi"))
    await writer.drain()
    answer = [NewMessage(Role.ASSISTANT, (TextPart("hi"),))]
    await finish.end_task(resources, claimed, status=TaskStatus.COMPLETED, step=1, said=answer)
    waiting = await api.ask("/stream 3", session_id, publish=False)
    async with working(api.settings):
        await resources.outbox.publish(Turn(task.id, session_id))
        await api.ended(waiting)
        seen = await api.read(await api.row(task))
    assert seen.types[-3:] == ["text-end", "finish-step", "finish"]
    assert seen.text == "hi"


async def test_the_lock_of_a_dead_holder_is_taken_over(api: ApiSide) -> None:
    session_id = new_session_id()
    dead = Holder(ExecutorId("dead-executor-00"), TaskId("its-task"))
    await api.resources.redis.set(lock_key(session_id), str(dead), ex=60)
    async with working(api.settings):
        task = await api.ask("/stream 3", session_id)
        row = await api.ended(task)
    assert row.status is TaskStatus.COMPLETED
    assert await api.resources.redis.get(lock_key(session_id)) is None


async def test_a_cancel_that_no_executor_received_is_found_by_polling(api: ApiSide) -> None:
    async with working(api.settings):
        task = await api.ask("/stream 2000 10", new_session_id())
        await api.read(task, until="5 ")
        async with api.resources.database.connection() as c:
            await tasks.request_cancel(c, task.id)
        row = await api.ended(task)
        seen = await api.read(row)
    assert row.status is TaskStatus.CANCELLED
    assert seen.types[-2:] == ["abort", "finish"]
    assert await api.answer(task) == seen.text


async def test_a_turn_survives_the_loss_of_all_connections_to_postgres(api: ApiSide) -> None:
    async with working(api.settings):
        task = await api.ask("/stream 50 10", new_session_id())
        await api.read(task, until="20 ")
        async with api.resources.database.connection() as c:
            await c.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        row = await api.ended(task)
    assert row.status is TaskStatus.COMPLETED
    assert await api.answer(task) == numbers(50)


async def test_a_session_gets_a_title_from_its_first_message(api: ApiSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.turns.title.TITLE_LIMIT", limit(10))
    session_id = new_session_id()
    async with working(api.settings):
        task = await api.ask("Tell me about fences and cursors", session_id)
        seen = await api.read(task)
    async with api.resources.database.connection() as c:
        session = await sessions.get_session(c, session_id, CALLER)
    assert session.title == "Tell me about fences and cursors"
    assert "data-title" in seen.types
