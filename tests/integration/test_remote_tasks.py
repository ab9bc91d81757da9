"""The side job that asks tool servers for tasks: which servers it asks, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import mcp_types
import pytest

from backend.chat.flows.finish import _give_up_calls
from backend.chat.outcomes import RemoteTask, ToolWork
from backend.chat.questions import Question, QuestionKind
from backend.chat.resources import Resources
from backend.chat.store import operations, tasks
from backend.chat.store.remote_tasks import KEPT, ClaimedTask
from backend.postgres import Connection, Database
from backend.supervised import end_job
from executor.agent.calls import Calls, ToolHost
from executor.mcp import task_outcomes, tool
from executor.mcp.failures import ServerUnavailable
from executor.mcp.server_entry import HttpServer
from executor.mcp.task_outcomes import ConnectionWithTasks, McpWork
from executor.mcp.tasks import ServerTasks, TaskState
from executor.operations import Operations, WaitingCalls
from executor.side_jobs import remote_tasks
from executor.side_jobs.remote_tasks import AT_ONCE, AT_ONCE_OF_ONE, RETRY_IN, RemoteTasks
from executor.side_jobs.sweeper import Sweeper
from executor.tools.context import ToolContext
from executor.tools.remote_work import StillRunning
from executor.tools.tool import OperationAccepted, Toolbox
from executor.turns.context import ExecutorContext
from tests.integration.rows import a_session, a_task, new_user
from tests.integration.running_api import running_api
from tests.integration.test_stores_remote_tasks import ME, an_operation, none_stored
from tests.speed import limit

__all__ = ["none_stored"]
SERVERS = [f"server-{number}" for number in range(6)]


def side_job(database: Database, *names: str, **tasks: Any) -> RemoteTasks:
    connections = [
        SimpleNamespace(server=SimpleNamespace(name=name), can_tell_of_tasks=True, tasks=SimpleNamespace(**tasks))
        for name in names
    ]
    resources = cast(Resources, SimpleNamespace(database=database, me=ME))
    waits = WaitingCalls(1)
    waits.over = True
    servers = [McpWork(cast(ConnectionWithTasks, connection)) for connection in connections]
    context = SimpleNamespace(work_servers=lambda: servers, waits=waits, start_work=no_work, can_ask=lambda _: True)
    return RemoteTasks(resources, cast(ExecutorContext, context))


def no_work(work: Coroutine[Any, Any, None]) -> bool:
    work.close()
    return False


@pytest.mark.parametrize("server", SERVERS)
async def test_each_of_many_servers_is_asked(server: str, database: Database, c: Connection) -> None:
    operation = await an_operation(c, server=server)
    assert [one.task_id for one in await side_job(database, *SERVERS)._claim()] == [operation.task_id]


async def test_no_more_tasks_are_asked_for_at_once_than_there_are_places(database: Database, c: Connection) -> None:
    for server in SERVERS:
        for _ in range(AT_ONCE_OF_ONE + 1):
            await an_operation(c, server=server)
    job = side_job(database, *SERVERS)
    claimed = await job._claim()
    assert len(claimed) == AT_ONCE
    job._asked.update({one.task_id: one.remote.server for one in claimed})
    assert await job._claim() == []


async def test_a_stop_of_the_executor_answers_no_question_of_a_task(
    postgres_dsn: str, redis_dsn: str, c: Connection
) -> None:
    """The next executor asks again. A task that got `cancel` at each deploy would not wait for its user."""
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        operation = await an_operation(c)
        ended = "UPDATE tasks SET status = 'completed', active_session_id = NULL WHERE id = $1"
        await c.execute(ended, operation.work.turn)
        job = side_job(api.resources.database, "one")
        job._resources = api.resources
        context = job._context_of(operation, await tasks.get_task(c, operation.task_id))
        asks = Question(QuestionKind.ELICITATION, "Where?")
        work = ToolWork(operation.work.turn, "one_work", operation.work.tool_call_id, {}, asks=asks)
        answer = await context.operations.ask_now(work, 1.0, lambda _: None)
        assert answer["error"] == "not_answered"


async def test_a_server_that_refuses_a_cancel_is_not_told_for_ever(database: Database, c: Connection) -> None:
    async def refuse(remote: RemoteTask) -> None:
        raise ServerUnavailable("it forbids that")

    await an_operation(c)
    job = side_job(database, "one", cancel=refuse)
    (claimed,) = await job._claim()
    assert await job._stop(claimed, job._servers["one"]) == RETRY_IN
    assert await job._stop(claimed, job._servers["one"]) == RETRY_IN
    job._unstopped[claimed.task_id] -= KEPT
    assert await job._stop(claimed, job._servers["one"]) is None
    assert job._unstopped == {}


async def test_rows_are_removed_even_if_no_executor_has_tool_servers_any_longer(
    database: Database, c: Connection
) -> None:
    operation = await an_operation(c, due_in=-2 * KEPT)
    await c.execute("UPDATE tasks SET status = 'cancelled' WHERE id = $1", operation.task_id)
    await Sweeper(cast(Resources, SimpleNamespace(database=database)))._prune()
    assert await c.fetchval("SELECT count(*) FROM remote_tasks") == 0


async def test_an_executor_without_remote_tasks_looks_for_them_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_tasks, "LOOK_EVERY", 0.001)
    monkeypatch.setattr(remote_tasks, "CALM_AFTER", 0.05)
    looks = 0

    async def none(job: RemoteTasks) -> list[ClaimedTask]:
        nonlocal looks
        looks += 1
        return []

    monkeypatch.setattr(RemoteTasks, "_claim", none)
    running = asyncio.create_task(side_job(cast(Database, None), "one").run())
    await asyncio.sleep(0.3)
    before = looks
    await asyncio.sleep(0.5)
    running.cancel()
    assert before > 0
    assert looks == before


async def test_a_task_whose_turn_was_cut_off_is_opened_by_the_next_attempt(
    postgres_dsn: str, redis_dsn: str, c: Connection
) -> None:
    """If its server stayed away, it would end at its deadline without a continuation, though the turn has ended."""
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        operation = await an_operation(c)
        job = side_job(api.resources.database, "one")
        job._resources = api.resources
        context = job._context_of(operation, await tasks.get_task(c, operation.task_id))
        host = cast(ToolHost, SimpleNamespace(context_of=lambda _: context))
        output = await Calls([], Toolbox([]), host, 5)._begun(operation.work.call)
        assert output is not None
        assert output["type"] == "operation_started"
        assert (await operations.get_operation(c, operation.id)).opened


async def test_a_continuation_that_is_cancelled_while_it_waits_for_a_task_has_it_stopped(c: Connection) -> None:
    first = await an_operation(c, due_in=600)
    continuation = await tasks.get_task(c, first.task_id)
    work = ToolWork(continuation.id, "one_work", "call-of-the-continuation", {}, remote="one")
    second = await operations.register(c, first.session_id, work, limit=900)
    await _give_up_calls(c, continuation)
    assert not (await operations.get_operation(c, second.id)).pending


@pytest.mark.parametrize(("status", "due_within"), [("input_required", 0.0), ("working", 2.0)])
async def test_a_task_that_its_turn_leaves_is_looked_at_within_the_interval_of_its_server(
    status: str, due_within: float, postgres_dsn: str, redis_dsn: str, c: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that asks its user at once was looked at after PATIENCE + SLACK, as if its turn still asked for it."""
    monkeypatch.setattr(tool, "FIRST_LOOK", 0.001)
    told = TaskState.model_validate({"taskId": "id-1", "status": status, "pollIntervalMs": 2_000})

    async def call(name: str, arguments: dict[str, Any], caller: Any) -> TaskState:
        return told

    async def look(task: RemoteTask) -> TaskState:
        monkeypatch.setattr(tool, "PATIENCE", 0.0)
        raise TimeoutError  # as PATIENCE does that is over

    server = HttpServer(name="one", url="https://one.example/mcp")  # type: ignore[arg-type]
    remote = mcp_types.Tool(name="work", input_schema={"type": "object"})
    (made,) = tool.offered_tools([remote], server, call, tasks=cast(Any, SimpleNamespace(look=look))).tools.values()
    user = new_user()
    session = await a_session(c, user)
    turn = await a_task(c, session, user)
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        own = Operations(api.resources, session, no_work)
        context = ToolContext(session, turn.id, "call", user.user_id, api.resources.database, own)
        accepted = await made.run(made.input_type.model_validate({}), context)
    assert isinstance(accepted, OperationAccepted)
    due = "SELECT due_at <= now() + make_interval(secs => $2) FROM remote_tasks WHERE id = $1"
    assert await c.fetchval(due, accepted.operation.task_id, due_within)


async def test_the_model_reads_with_the_outcome_of_a_task_that_its_user_did_not_answer(
    postgres_dsn: str, redis_dsn: str, c: Connection
) -> None:
    """The look that finds the outcome may be another executor's, so the note is stored."""
    asks = {"trip": {"method": "elicitation/create", "params": {"message": "Where?", "requestedSchema": {}}}}
    told = {"taskId": "id-1", "status": "input_required", "inputRequests": asks}
    server = HttpServer(name="one", url="https://one.example/mcp", elicitation_wait=0)  # type: ignore[arg-type]

    def connection(answer: dict[str, Any]) -> Any:
        async def ask(whose: str | None, act: Any) -> Any:
            return await act(SimpleNamespace(ask=told_by))

        async def told_by(request: Any, kind: Any, progress: Any = None, live: Any = None) -> Any:
            return kind.validate_python({} if request.method == "tasks/update" else answer, by_name=False)

        return SimpleNamespace(server=server, can_tell_of_tasks=True, tasks=ServerTasks(server, ask))

    done = {"taskId": "id-1", "status": "completed", "result": {"content": [{"type": "text", "text": "booked"}]}}
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        operation = await an_operation(c, executor=api.resources.me)
        for answer in (told, done):
            job = side_job(api.resources.database, "one")
            job._resources = api.resources
            (claimed,) = await job._claim()
            await job._look(claimed, McpWork(connection(answer)), *cast(Any, await job._find(claimed)))
    result = (await operations.get_operation(c, operation.id)).result
    assert result is not None
    assert "The tool asked the user something" in result["message"]


async def test_a_question_whose_server_does_not_let_go_holds_no_place(
    database: Database, c: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_tasks, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(remote_tasks, "end_job", partial(end_job, limit=0.01))
    go_on = asyncio.Event()

    async def stubborn(*_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await go_on.wait()

    monkeypatch.setattr(task_outcomes, "answer_to", stubborn)
    operation = await an_operation(c)
    job = side_job(database, "one")
    (claimed,) = await job._claim()
    await c.execute("UPDATE tasks SET status = 'cancelled' WHERE id = $1", operation.task_id)
    state = TaskState.model_validate({"taskId": "id-1", "status": "input_required"})
    async with asyncio.timeout(limit(20)):
        answered = job._answered(
            claimed, job._servers["one"], StillRunning(1.0, wants=state), operation, cast(ToolContext, None), []
        )
        assert await answered is None
    assert job._waiting == set()
    go_on.set()
