"""Tests of operations during cancels, crashes, edits and early outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest

from backend.chat.flows import finish, start
from backend.chat.flows.complete import complete_operation
from backend.chat.models import Caller, NewMessage, Role, TaskStatus, ToolCallPart, TurnRequest, Usage
from backend.chat.outcomes import Operation, Outcome, Progress, ToolWork
from backend.chat.store import operations, tasks
from backend.chat.store.sessions import create_session
from backend.errors import Unavailable
from backend.ids import SessionId, StreamId, TaskId, UserId, new_executor_id, new_session_id
from executor.generator import ErrorType, GeneratorFailure
from executor.generator.client import Generator
from executor.generator.work import GENERATE
from executor.generator.work import Work as OrderedWork
from executor.operations import Operations
from executor.tools.context import ToolContext
from executor.tools.create_agent import CreateAgent, CreateAgentArgs
from executor.tools.tool import OperationAccepted, StoredResponse, Tool
from tests.e2e.sse import PACE, words_for
from tests.fakes.outside_work import OutsideToolbox, OutsideWork, Work
from tests.integration.running_api import LIMIT, RunningApi, executing, new_user, running_api
from tests.integration.test_api_events import listening
from tests.integration.test_operations import KEY, START, begin, complete, result_of
from tests.servers.redis import RedisNode
from tests.speed import lasting, limit

MAKE_AGENT = '/tool outside_work {"use": "save_agent"}'
AN_AGENT = {"agent_json": {"name": "Sorter", "nodes": [{"id": "a"}], "links": []}}


class PausingTool(OutsideWork):
    """A tool that registers its operation and then waits for `proceed` before it calls its service."""

    registered: asyncio.Future[Operation]
    proceed: asyncio.Event

    async def run(self, call: Work, context: ToolContext) -> OperationAccepted | StoredResponse:
        if call.label != "pause":
            return await super().run(call, context)
        work = ToolWork(context.task_id, self.name, context.tool_call_id, call.model_dump(mode="json"), use=call.use)
        operation = await context.operations.register(work)
        PausingTool.registered.set_result(operation)
        await PausingTool.proceed.wait()
        await context.operations.mark_opened(operation)
        return OperationAccepted(operation)


class FailingTool(OutsideWork):
    """A tool that registers its operation and then fails, or never ends. `opened`: its service accepted before that."""

    time_limit = lasting(0.5)

    async def run(self, call: Work, context: ToolContext) -> OperationAccepted | StoredResponse:
        work = ToolWork(context.task_id, self.name, context.tool_call_id, call.model_dump(mode="json"), use=call.use)
        operation = await context.operations.register(work)
        if "opened" in call.label:
            await context.operations.mark_opened(operation)
        if "slow" in call.label:
            await asyncio.Event().wait()
        raise ValueError("a mistake in the tool")


class PausingToolbox(OutsideToolbox):
    def find(self, name: str) -> Tool[Any] | None:
        tools = {"outside_work": PausingTool(), "failing_work": FailingTool()}
        return tools.get(name) or super().find(name)


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, toolbox=PausingToolbox) as resources:
        yield resources


@pytest.fixture(autouse=True)
async def _new_pause() -> None:
    PausingTool.registered = asyncio.get_running_loop().create_future()
    PausingTool.proceed = asyncio.Event()


async def wait_until_ended(api: RunningApi, session: str, mine: dict[str, str]) -> None:
    async with asyncio.timeout(LIMIT):
        while (await api.session(session, mine))["operations"]:
            await asyncio.sleep(0.05)


async def test_a_cancel_whose_api_died_is_completed(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    async with api.resources.database.connection() as c:
        assert await tasks.request_cancel(c, TaskId(started["task_id"]))
    await wait_until_ended(api, session, mine)
    assert result_of(await api.session(session, mine))["error"] == "cancelled"
    kinds = [chunk["type"] for chunk in (await api.ended(started["task_id"], mine)).chunks]
    assert kinds[-3:] == ["finish-step", "abort", "finish"]


async def test_a_cancel_whose_api_died_after_its_claim_leaves_one_tool_message(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    async with api.resources.database.connection() as c:
        requested = await tasks.request_cancel(c, TaskId(started["task_id"]))
        assert requested is not None
        dead = new_executor_id()
        assert await tasks.claim_task(c, requested.id, dead, seen_owner=None, seen_attempt=1, only_active=False)
    await wait_until_ended(api, session, mine)
    assert result_of(await api.session(session, mine))["error"] == "cancelled"
    kinds = [chunk["type"] for chunk in (await api.ended(started["task_id"], mine)).chunks]
    assert kinds == [
        "start",
        "start-step",
        "tool-input-available",
        "tool-output-error",
        "finish-step",
        "abort",
        "finish",
    ]


async def test_a_turn_cancelled_while_its_outcome_arrives_keeps_the_result(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    call = '/tool outside_work {"use": "save_agent", "label": "pause"}'
    answering = asyncio.create_task(api.say(session, call, mine))
    async with asyncio.timeout(LIMIT):
        operation = await PausingTool.registered
    assert (await complete(api, operation.id, result=AN_AGENT)).status_code == 200
    assert (await api.http.post(f"/api/chat/sessions/{session}/cancel", headers=mine)).json()["cancelled"]
    await answering
    continuation = await api.ended(operation.task_id, mine)
    assert (
        continuation.text == "The work of outside_work has ended: The agent “Sorter” is in your library, as version 1."
    )
    assert result_of(await api.session(session, mine))["type"] == "agent_saved"


async def test_an_interrupted_call_gets_its_result_when_the_outcome_arrives_later(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    answering = asyncio.create_task(api.say(session, '/tool outside_work {"label": "pause"}', mine))
    async with asyncio.timeout(LIMIT):
        operation = await PausingTool.registered
    # the service accepts, but the call is interrupted before the answer
    async with api.resources.database.connection() as c:
        assert await operations.open_operation(c, operation, "0-0", limit=60)
    await api.http.post(f"/api/chat/sessions/{session}/cancel", headers=mine)
    await answering
    assert result_of(await api.session(session, mine))["error"] == "interrupted"
    assert (await complete(api, operation.id, result="done")).status_code == 200
    assert (await api.ended(operation.task_id, mine)).text.endswith("The work is done.")
    assert result_of(await api.session(session, mine))["outputs"] == "done"


async def test_pages_get_no_hint_about_a_start_after_the_end(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    async with listening(api, mine) as hints:
        answering = asyncio.create_task(api.say(session, '/tool outside_work {"label": "pause"}', mine))
        async with asyncio.timeout(LIMIT):
            operation = await PausingTool.registered
        async with listening(api, mine) as late:
            assert late.seen[0]["operations"] == [], "its service has not accepted the operation"
        assert (await complete(api, operation.id)).status_code == 200
        await hints.until("operation-finished", operation_id=operation.id)
        PausingTool.proceed.set()
        await answering
        await hints.until("turn-finished", task_id=operation.task_id)
        assert not [hint for hint in hints.seen if hint["type"] == "operation-started"]


async def test_the_result_of_a_user_in_an_anonymous_session_belongs_to_the_user(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session()
    client = await api.say(session, MAKE_AGENT, mine)
    (started,) = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
    assert (await complete(api, started["operation_id"], result=AN_AGENT)).status_code == 200
    assert result_of(await api.session(session, mine))["type"] == "agent_saved"
    found = await api.http.get("/api/library/agents", headers=mine)
    assert [agent["name"] for agent in found.json()["agents"]] == ["Sorter"]


async def test_a_continuation_runs_after_messages_that_waited_before_its_outcome_arrived(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    path = f"/api/chat/sessions/{session}/stream"
    texts = [f"/stream {words_for(2)} {PACE}", "/say before", "/say after"]
    answering = [asyncio.create_task(api.read("POST", path, json={"message": texts[0]}, headers=mine))]
    await api.active_stream(session, mine)
    for waiting, text in enumerate(texts[1:], 1):
        answering.append(asyncio.create_task(api.read("POST", path, json={"message": text}, headers=mine)))
        async with asyncio.timeout(LIMIT):
            while len((await api.session(session, mine))["queued"]) < waiting:
                await asyncio.sleep(0.02)
        if waiting == 1:
            assert (await complete(api, started["operation_id"])).status_code == 200
    await asyncio.gather(*answering)
    continuation = await api.ended(started["task_id"], mine)
    rows = (await api.session(session, mine))["messages"]
    answers = [row["content"] for row in rows if row["role"] == "assistant"]
    assert answers[-3:] == ["before", continuation.text, "after"]


async def test_the_model_gets_the_result_even_if_its_call_was_superseded(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    again = {"id": session, "messages": [], "trigger": "regenerate-message"}
    answer, _ = await api.read("POST", "/api/chat", json=again, headers=mine)
    assert answer.status_code == 200
    assert (await complete(api, started["operation_id"], success=False, error="No more wood.")).status_code == 200
    continuation = await api.ended(started["task_id"], mine)
    assert continuation.text == "The work of outside_work has ended: No more wood."


async def test_a_continuation_whose_executor_died_in_a_call_repeats_that_call(
    postgres_dsn: str, redis_dsn: str
) -> None:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        user = new_user()
        task = await _executor_dies_in_a_call(api, Caller(UserId(user), "192.0.2.3"))
        async with executing(api.resources.settings):
            continuation = await api.ended(task, api.as_user(user))
    outputs = [chunk["toolCallId"] for chunk in continuation.chunks if chunk["type"] == "tool-output-available"]
    assert outputs == ["call_of_the_turn", "call_of_the_continuation"]
    assert continuation.chunks[-1]["messageMetadata"]["status"] == "completed"


async def _executor_dies_in_a_call(api: RunningApi, caller: Caller) -> str:
    """Returns the task of an operation whose continuation called a tool before its executor died."""
    resources, session = api.resources, new_session_id()
    started = await start.start_turn(
        resources, caller, session, TurnRequest("Go."), message_key=None, create_session=True
    )
    turn = started.task
    assert await finish.end_unowned(resources, turn, TaskStatus.COMPLETED)
    async with resources.database.connection() as c:
        operation = await operations.register(c, session, ToolWork(turn.id, "a_tool", "call_of_the_turn", {}), limit=60)
        await operations.open_operation(c, operation, "0-0", limit=60)
    assert (await complete_operation(resources, operation.id, Outcome(True, "ok"))).next_turn is not None
    call = ToolCallPart("call_of_the_continuation", "find_library_agent", {"query": "mail"})
    async with resources.database.transaction() as c:
        dead = new_executor_id()
        claim = await tasks.claim_task(c, operation.task_id, dead, seen_owner=None, seen_attempt=1)
        assert claim is not None
        await tasks.commit_step(c, claim, step=1, checkpoint=StreamId(claim.fence, 5), usage=Usage())
        await finish.append_new_messages(c, claim, 2, [NewMessage(Role.ASSISTANT, (call,))])
        await tasks.commit_step(c, claim, step=2, checkpoint=StreamId(claim.fence, 9), usage=Usage())
    return operation.task_id


async def test_work_beyond_the_capacity_is_refused_at_once(api: RunningApi) -> None:
    resources = api.resources
    session = new_session_id()
    async with resources.database.connection() as c:
        await create_session(c, session, None, {})
    full = Operations(resources, session, refuse)
    work = ToolWork(TaskId("a turn"), "long_work", "call_1", {})
    started = await full.run_in_background(work, lambda: asyncio.sleep(0))
    assert not started.already_started
    assert started.operation.result is not None
    assert started.operation.result["error"] == "service_unavailable"
    assert await full.find("call_1") is not None
    assert (await api.session(session))["operations"] == []


def refuse(work: Coroutine[Any, Any, None]) -> bool:
    work.close()
    return False


class UncertainOperations(Operations):
    """Operations whose registration is stored, but whose caller does not learn it: `how` says why."""

    how = ""

    async def register(self, work: ToolWork, limit: float = 60.0) -> Operation:
        registered = await super().register(work, limit)
        if self.how == "lost reply":
            raise Unavailable
        if self.how == "cancelled":
            await asyncio.Event().wait()
        return registered

    async def settle(self, operation: Operation, outcome: Outcome) -> Any:
        raise Unavailable


@pytest.mark.parametrize("how", ["lost reply", "cancelled", "no capacity"])
async def test_an_operation_whose_work_did_not_begin_ends(api: RunningApi, how: str) -> None:
    resources, session = api.resources, SessionId(await api.new_session())
    jobs: list[asyncio.Task[None]] = []

    def begin_job(work: Coroutine[Any, Any, None]) -> bool:
        if how == "no capacity" and not jobs:
            jobs.append(asyncio.create_task(asyncio.sleep(0)))
            return refuse(work)
        jobs.append(asyncio.create_task(work))
        return True

    ran = False

    async def run() -> None:
        nonlocal ran
        ran = True

    mine = UncertainOperations(resources, session, begin_job)
    mine.how = how
    work = ToolWork(TaskId("a turn"), "long_work", "call_1", {})
    with pytest.raises((Unavailable, TimeoutError)):
        async with asyncio.timeout(limit(2) if how == "cancelled" else LIMIT):
            await mine.run_in_background(work, run)
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*jobs)
    ended = await mine.find("call_1")
    assert ended is not None
    assert not ended.pending
    assert ended.result is not None
    assert ended.result["error"] == "interrupted_unknown_effect"
    assert not ran


class CountingGenerator:
    """A generator that answers at once, with a failure, and counts the requests."""

    def __init__(self) -> None:
        self.sent = 0

    async def send(self, *_: object) -> None:
        self.sent += 1
        raise GeneratorFailure(ErrorType.LLM_PARSE_ERROR)


@pytest.mark.parametrize("opened", [True, False])
async def test_an_order_that_was_accepted_is_not_sent_again(api: RunningApi, *, opened: bool) -> None:
    resources, user, session = api.resources, UserId(new_user()), new_session_id()
    async with resources.database.connection() as c:
        await create_session(c, session, user, {})
    mine, generator = Operations(resources, session, refuse), CountingGenerator()
    order = OrderedWork(GENERATE, "{}").as_json()
    operation = await mine.register(ToolWork(TaskId("a turn"), "create_agent", "call_1", {}, order=order))
    if opened:
        await mine.mark_opened(operation)
    context = ToolContext(session, TaskId("a turn"), "call_1", user, resources.database, mine)
    tool = CreateAgent(cast(Generator, generator))
    answer = await tool.run(CreateAgentArgs(description="x"), context)
    assert generator.sent == (0 if opened else 1)
    assert isinstance(answer, OperationAccepted if opened else StoredResponse)
    found = await mine.find("call_1")
    assert found is not None
    assert found.pending is opened


async def test_an_answer_at_once_for_an_accepted_operation_continues_the_conversation(api: RunningApi) -> None:
    """Two attempts ask at the same time: one is told that the work is accepted, the other gets its result."""
    mine = api.as_user()
    session, started = await begin(api, mine)
    operations_of = Operations(api.resources, SessionId(session), refuse)
    async with api.resources.database.connection() as c:
        opened = await operations.get_operation(c, started["operation_id"])
    assert await operations_of.settle(replace(opened, opened=False), Outcome(True, "done")) is None
    continuation = await api.ended(started["task_id"], mine)
    assert continuation.text.endswith("The work is done.")
    assert continuation.chunks[-1]["type"] == "finish"


async def test_progress_is_accepted_while_redis_does_not_answer(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with running_api(postgres_dsn, private_redis.dsn, toolbox=OutsideToolbox) as api:
        mine = api.as_user()
        session, started = await begin(api, mine, START)
        private_redis.pause()
        try:
            path = f"/api/chat/operations/{started['operation_id']}/progress"
            async with asyncio.timeout(limit(5)):
                answer = await api.http.post(path, json={"percent": 7}, headers=KEY)
            assert answer.status_code == 202
        finally:
            private_redis.resume()
        (operation,) = (await api.session(session, mine))["operations"]
        assert operation["progress"] == {"percent": 7, "message": None}


async def test_the_feed_of_a_session_ends_when_another_user_takes_the_session(
    postgres_dsn: str, private_redis: RedisNode
) -> None:
    async with running_api(postgres_dsn, private_redis.dsn) as api:
        session = await api.new_session()
        async with listening(api, session_id=session) as hints:
            taken = await api.http.patch(f"/api/chat/sessions/{session}/assign-user", headers=api.as_user())
            assert taken.status_code == 200
            await private_redis.kill()  # a feed that may have missed hints gets a new snapshot
            await private_redis.start()
            await asyncio.wait_for(hints.ended.wait(), LIMIT)
        assert [hint["type"] for hint in hints.seen] == ["snapshot"]


async def test_a_service_is_asked_again_only_for_accepted_operations_of_which_nothing_was_heard(
    postgres_dsn: str, redis_dsn: str
) -> None:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        session = new_session_id()
        async with api.resources.database.connection() as c:
            await create_session(c, session, None, {})
            made = {
                name: await operations.register(
                    c, session, ToolWork(TaskId("a turn"), "t", name, {}, order=order), limit=60
                )
                for name, order in {
                    "silent": {"path": "/x", "body": "{}"},
                    "reporting": {"path": "/x", "body": "{}"},
                    "unopened": {"path": "/x", "body": "{}"},
                    "without an order": None,
                    "cancelled": {"path": "/x", "body": "{}"},
                }.items()
            }
            for name, operation in made.items():
                if name != "unopened":
                    assert await operations.open_operation(c, operation, "0-0", limit=60)
            assert await tasks.request_cancel(c, made["cancelled"].task_id)
            await c.execute("UPDATE tasks SET heard_at = now() - interval '5 minutes' WHERE session_id = $1", session)
            await operations.note_progress(c, made["reporting"], Progress(5))

            async def taken(*besides: TaskId) -> list[str]:
                found = await operations.take_silent_operations(c, silent_for=60, limit=10, besides=besides)
                return [operation.work.tool_call_id for operation in found]

            assert await taken(made["silent"].task_id) == []
            assert await taken() == ["silent"]
            assert await taken() == [], "it was asked just now"


@pytest.mark.parametrize(("how", "error"), [("fails", "tool_failed"), ("slow", "timeout")])
async def test_a_tool_that_fails_ends_the_operation_that_no_service_accepted(
    api: RunningApi, how: str, error: str
) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    client = await api.say(session, f'/tool failing_work {{"label": "{how}"}}', mine)
    (output,) = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
    assert (output["type"], output["error"]) == ("error", error)
    assert result_of(await api.session(session, mine)) == output
    async with api.resources.database.connection() as c:
        left = await c.fetch(
            "SELECT status, deadline_at FROM tasks WHERE session_id = $1 AND kind = 'operation'", session
        )
    assert [(row["status"], row["deadline_at"]) for row in left] == [("failed", None)]


async def test_an_operation_that_was_accepted_goes_on_when_its_tool_fails(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    client = await api.say(session, '/tool failing_work {"label": "opened"}', mine)
    (started,) = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
    assert started["type"] == "operation_started"
    assert (await complete(api, started["operation_id"], result="done")).status_code == 200
    assert (await api.ended(started["task_id"], mine)).text.endswith("The work is done.")
