"""What an executor does when things go wrong around a turn. In one process, over real stores."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest

from backend.chat import flows, messages, sessions, tasks
from backend.chat.chunks import Start, StartStep, TextDelta, TextStart
from backend.chat.keys import TURNS, lock_key, stream_key
from backend.chat.locks import Holder
from backend.chat.models import Caller, Message, NewMessage, Role, Task, TaskStatus, TextPart, Turn, TurnRequest
from backend.chat.reading import attach
from backend.chat.redis_deliveries import BODY
from backend.chat.turns import task_named_by
from backend.config import Settings, load_settings
from backend.errors import CursorExpired, StreamCut
from backend.ids import ExecutorId, SessionId, StreamId, TaskId, new_executor_id, new_session_id
from backend.resources import Resources, open_resources
from executor.agent.agent import Agent
from executor.agent.calls import Desk
from executor.crew import Crew
from executor.heartbeat import Heartbeat
from executor.llm.model import open_model
from executor.sweeper import SWEEP_EVERY, Sweeper
from executor.tools import open_toolbox
from executor.worker import Worker
from tests.e2e.sse import words_for
from tests.servers.redis import RedisNode
from tests.speed import limit
from tests.sse_client import StrictClient

LIMIT = limit(30)
WORDS = words_for(2)
ANYONE = Caller(None, f"tests of the executor {os.getpid()}")


@dataclass(frozen=True, slots=True)
class Office:
    """The API's side of the house, and a settings maker for executors."""

    house: Resources
    settings: Settings

    async def ask(self, text: str, session_id: SessionId, *, publish: bool = True) -> Task:
        request = TurnRequest(text)
        task, _ = await flows.start_turn(self.house, ANYONE, session_id, request, message_key=None, create_session=True)
        if publish and task.active:
            await self.house.outbox.publish(Turn(task.id, session_id))
        return task

    async def read(self, task: Task, cursor: StreamId | None = None, *, until: str | None = None) -> StrictClient:
        """Reads to the end, or until an event holds `until`."""
        client = StrictClient()
        blocks = await attach(
            self.house.hub, self.house.streams, task, cursor, accepts=frozenset(), messages_of=self._messages_of
        )
        async with asyncio.timeout(LIMIT), aclosing(blocks):
            async for block in blocks:
                client.feed(block)
                if until is not None and until in client.text:
                    break
        return client

    async def _messages_of(self, task_id: TaskId) -> Sequence[Message]:
        async with self.house.database.connection() as c:
            return await messages.messages_of_task(c, task_id)

    async def row(self, task: Task) -> Task:
        async with self.house.database.connection() as c:
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
async def office(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[Office]:
    settings = load_settings(
        files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", shutdown_grace=0.1
    )
    async with open_resources(settings) as house:
        yield Office(house, settings)


class FaultyCrew(Crew):
    """A crew with a fault of ours, where no attempt can end its task."""

    def agent(self, task: Task, desk: Desk) -> Agent:
        raise RuntimeError("a fault of ours")


@asynccontextmanager
async def working(settings: Settings, crew_type: type[Crew] = Crew) -> AsyncIterator[Resources]:
    """An executor that works while the block lasts, and then stops as after SIGTERM."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_resources(settings))
        model = await stack.enter_async_context(open_model(settings))
        crew = crew_type(settings, model, None, open_toolbox(settings), Heartbeat(house))
        job = asyncio.create_task(Worker(house, crew).run(stop))
        try:
            yield house
        finally:
            stop.set()
            await asyncio.wait_for(job, LIMIT)


def counted(n: int) -> str:
    return "".join(f"{i} " for i in range(n))


async def test_a_turn_that_nobody_published_is_found_by_the_sweeper(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executor.sweeper.UNPUBLISHED_AFTER", 0.2)
    task = await office.ask("/stream 3", new_session_id(), publish=False)
    async with working(office.settings):
        assert (await office.ended(task)).status is TaskStatus.COMPLETED


async def test_when_redis_loses_the_stream_in_mid_turn_the_turn_starts_again_and_its_text_is_exact(
    office: Office,
) -> None:
    session_id = new_session_id()
    async with working(office.settings):
        task = await office.ask(f"/stream {WORDS} 10", session_id)
        await office.read(task, until="20 ")
        await office.house.streams.delete(stream_key(session_id, task.id))
        row = await office.ended(task)
        again = await office.read(row)
    assert row.status is TaskStatus.COMPLETED
    assert row.crashes == 0
    assert row.attempt > 1
    assert again.text == counted(WORDS)
    assert await office.answer(task) == counted(WORDS)


async def test_a_reader_of_a_stream_that_was_lost_is_told_so_and_never_sees_a_word_twice(office: Office) -> None:
    session_id = new_session_id()
    async with working(office.settings):
        task = await office.ask(f"/stream {WORDS} 10", session_id)
        seen = await office.read(task, until="20 ")
        await office.house.streams.delete(stream_key(session_id, task.id))
        with pytest.raises((CursorExpired, StreamCut)):
            await office.read(task, seen.cursor)
        await office.ended(task)


async def test_a_task_that_crashed_too_often_fails_visibly(office: Office) -> None:
    session_id = new_session_id()
    task = await office.ask("/stream 3", session_id, publish=False)
    for _ in range(office.settings.max_crashes + 1):
        row = await office.row(task)
        async with office.house.database.connection() as c:
            await tasks.claim_task(c, task.id, new_executor_id(), seen_owner=row.owner, seen_attempt=row.attempt)
    async with working(office.settings):
        await office.house.outbox.publish(Turn(task.id, session_id))
        row = await office.ended(task)
        seen = await office.read(row)
    assert row.status is TaskStatus.FAILED
    assert row.error is not None
    assert row.error.code == "crashed"
    assert seen.types[-1] == "finish"


async def test_a_fault_of_ours_ends_the_turn_visibly_and_at_once(office: Office) -> None:
    session_id = new_session_id()
    async with working(office.settings, FaultyCrew):
        task = await office.ask("/stream 3", session_id)
        row = await office.ended(task)
        seen = await office.read(row)
    assert (row.status, row.attempt) == (TaskStatus.FAILED, 1)
    assert row.error is not None
    assert row.error.code == "internal_error"
    assert seen.types[-1] == "finish"


async def test_a_turn_that_had_its_time_is_not_begun_again(office: Office) -> None:
    task = await office.ask("/stream 3", new_session_id())
    settings = office.settings.model_copy(update={"turn_timeout": 0.0})
    async with working(settings):
        row = await office.ended(task)
    assert row.error is not None
    assert row.error.code == "turn_timeout"


async def test_what_a_dead_executor_had_is_published_once(office: Office) -> None:
    house, dead = office.house, new_executor_id()
    held = [await office.ask("/stream 3", new_session_id(), publish=False) for _ in range(3)]
    async with house.database.connection() as c:
        for task in held:
            await tasks.claim_new_task(c, task.id, dead)
    beating = asyncio.create_task(Heartbeat(house).run())  # who does not beat judges nobody
    sweeping = asyncio.create_task(Sweeper(house).run())
    async with asyncio.timeout(LIMIT):
        while [task for task in held if (await office.row(task)).owner is not None]:
            await asyncio.sleep(0.05)
        for _ in range(2):  # two more sweeps
            await asyncio.sleep(SWEEP_EVERY)
    sweeping.cancel()
    beating.cancel()
    queued = [task_named_by(fields[BODY]) for _, fields in await house.redis.xrange(TURNS)]
    assert [queued.count(task.id) for task in held] == [1, 1, 1]
    assert {(await office.row(task)).crashes for task in held} == {1}
    async with working(office.settings):
        for task in held:
            assert (await office.ended(task)).status is TaskStatus.COMPLETED


async def test_a_running_turn_outlives_a_redis_that_is_away_for_longer_than_its_leases(
    postgres_dsn: str, private_redis: RedisNode
) -> None:
    settings = load_settings(
        files=(), database_url=postgres_dsn, redis_url=private_redis.dsn, queue="redis", session_lock_ttl=2
    )
    async with open_resources(settings) as house, working(settings):
        office = Office(house, settings)
        task = await office.ask("/stream 200 20", new_session_id())
        await office.read(task, until="10 ")
        await private_redis.kill()
        await asyncio.sleep(settings.session_lock_ttl)
        await private_redis.start()
        row = await office.ended(task)
        assert row.status is TaskStatus.COMPLETED
        assert await office.answer(task) == counted(200)
        assert (await office.read(row)).text == counted(200)


async def test_a_turn_is_handed_back_when_its_executor_stops_and_no_crash_is_counted(office: Office) -> None:
    session_id = new_session_id()
    async with working(office.settings):
        task = await office.ask(f"/stream {WORDS} 10", session_id)
        await office.read(task, until="5 ")
    row = await office.row(task)
    assert (row.status, row.owner, row.crashes) == (TaskStatus.RUNNING, None, 0)
    async with working(office.settings):
        row = await office.ended(task)
    assert (row.attempt, row.crashes) == (2, 0)
    assert await office.answer(task) == counted(WORDS)


async def test_a_copy_of_a_turn_that_runs_changes_nothing(office: Office) -> None:
    session_id = new_session_id()
    async with working(office.settings), working(office.settings):
        task = await office.ask("/stream 60 10", session_id)
        await office.read(task, until="5 ")
        for _ in range(3):
            await office.house.turns.publish(Turn(task.id, session_id))
        row = await office.ended(task)
    assert row.attempt == 1
    assert await office.answer(task) == counted(60)


async def test_a_turn_whose_executor_died_between_its_end_and_the_last_chunks_gets_them(office: Office) -> None:
    session_id, house = new_session_id(), office.house
    task = await office.ask("hello", session_id, publish=False)
    async with house.database.connection() as c:
        claimed = await tasks.claim_task(c, task.id, new_executor_id(), seen_owner=None, seen_attempt=0)
    assert claimed is not None
    writer = house.flusher.writer(stream_key(session_id, task.id), claimed.fence, create=True)
    await writer.append(Start(task.message_id), StartStep(), TextStart("t1"), TextDelta("t1", "hi"))
    await writer.drain()
    said = [NewMessage(Role.ASSISTANT, (TextPart("hi"),))]
    await flows.end_task(house, claimed, status=TaskStatus.COMPLETED, step=1, said=said)
    waiting = await office.ask("/stream 3", session_id, publish=False)
    async with working(office.settings):
        await house.outbox.publish(Turn(task.id, session_id))
        await office.ended(waiting)
        seen = await office.read(await office.row(task))
    assert seen.types[-3:] == ["text-end", "finish-step", "finish"]
    assert seen.text == "hi"


async def test_a_lock_that_somebody_dead_holds_is_taken_over(office: Office) -> None:
    session_id = new_session_id()
    dead = Holder(ExecutorId("dead-executor-00"), TaskId("its-task"))
    await office.house.redis.set(lock_key(session_id), str(dead), ex=60)
    async with working(office.settings):
        task = await office.ask("/stream 3", session_id)
        row = await office.ended(task)
    assert row.status is TaskStatus.COMPLETED
    assert await office.house.redis.get(lock_key(session_id)) is None


async def test_a_wish_to_cancel_that_no_executor_heard_is_seen_within_a_second_or_two(office: Office) -> None:
    async with working(office.settings):
        task = await office.ask("/stream 2000 10", new_session_id())
        await office.read(task, until="5 ")
        async with office.house.database.connection() as c:
            await tasks.request_cancel(c, task.id)
        row = await office.ended(task)
        seen = await office.read(row)
    assert row.status is TaskStatus.CANCELLED
    assert seen.types[-2:] == ["abort", "finish"]
    assert await office.answer(task) == seen.text


async def test_postgres_that_drops_its_connections_in_mid_turn_costs_nothing(office: Office) -> None:
    async with working(office.settings):
        task = await office.ask("/stream 50 10", new_session_id())
        await office.read(task, until="20 ")
        async with office.house.database.connection() as c:
            await c.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        row = await office.ended(task)
    assert row.status is TaskStatus.COMPLETED
    assert await office.answer(task) == counted(50)


async def test_a_session_gets_a_title_from_its_first_message(office: Office) -> None:
    session_id = new_session_id()
    async with working(office.settings):
        task = await office.ask("Tell me about fences and cursors", session_id)
        seen = await office.read(task)
    async with office.house.database.connection() as c:
        session = await sessions.get_session(c, session_id, ANYONE)
    assert session.title == "Tell me about fences and cursors"
    assert "data-title" in seen.types
