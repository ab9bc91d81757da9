"""Tasks of MCP servers: what is read of either generation of the protocol, and what becomes of their failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import mcp_types
import pytest
from mcp import MCPError
from mcp_types import methods
from pydantic import TypeAdapter, ValidationError

from backend.chat.models import ToolCallPart
from backend.chat.outcomes import RemoteTask
from backend.chat.protocol.tool_responses import ErrorResponse, ToolResponse
from backend.ids import SessionId, TaskId
from backend.postgres import Database
from executor.mcp.failures import (
    AnswerTooLarge,
    CallRefused,
    ServerBusy,
    ServerLost,
    ServerUnavailable,
    TaskLost,
    UnknownTask,
)
from executor.mcp.inputs import Inputs
from executor.mcp.link import _outcome
from executor.mcp.messages import decode
from executor.mcp.server_entry import HttpServer, Server, StdioServer
from executor.mcp.task_outcomes import answer_to, look_at
from executor.mcp.tasks import CALLED, DEFAULT_PAUSE, LEAST_PAUSE, LONGEST_PAUSE, ServerTasks, TaskConnection, TaskState
from executor.mcp.tool import offered_tools
from executor.operations import Operations
from executor.tools.context import ToolContext

REMOTE = HttpServer(name="one", url="https://one.example/mcp")  # type: ignore[arg-type]
PROGRAM = StdioServer(name="one", command="x")
TASK = RemoteTask("one", "work", "id-1")
OLDER = {"taskId": "id-1", "createdAt": "2026-11-30T20:00:00Z", "lastUpdatedAt": "2026-11-30T20:00:00Z", "ttl": 60_000}
NEWER = {**OLDER, "resultType": "complete", "ttlMs": 60_000}
FAILED = {"content": [], "isError": True}
CONTEXT = ToolContext(
    SessionId("s" * 16), TaskId("t"), "call", None, cast(Database, None), cast(Operations, None)
)  # unused
ASKS = {"trip": {"method": "elicitation/create", "params": {"message": "Where?", "requestedSchema": {}}}}


@dataclass
class FakeServer:
    """A server that answers from a list, in turn, and keeps what it was asked: the method, and the parameters."""

    answers: list[dict[str, Any] | Exception]
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def ask(self, request: Any, kind: TypeAdapter[Any], progress: Any = None, live: Any = None) -> Any:
        sent = request.model_dump(by_alias=True, mode="json", exclude_none=True)
        assert sent["params"]["taskId"] == TASK.id
        self.asked.append((sent["method"], sent["params"]))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return kind.validate_python(answer, by_name=False)


def tasks_of(server: Server, *answers: dict[str, Any] | Exception) -> tuple[ServerTasks, FakeServer]:
    fake = FakeServer(list(answers))

    async def ask(whose: str | None, act: Callable[[TaskConnection], Awaitable[Any]]) -> Any:
        return await act(fake)

    return ServerTasks(server, ask), fake


def test_an_answer_is_a_task_in_either_generation_or_a_result() -> None:
    older = CALLED.validate_python({"content": [], "task": {**OLDER, "status": "working", "pollInterval": 2_000}})
    newer = CALLED.validate_python({**NEWER, "resultType": "task", "status": "working", "pollIntervalMs": 2_000})
    for state in (older, newer):
        assert isinstance(state, TaskState)
        assert (state.id, state.status, state.pause) == ("id-1", "working", 2.0)
    plain = CALLED.validate_python({"content": [], "structuredContent": {"task": 7}})
    assert isinstance(plain, mcp_types.CallToolResult)
    assert isinstance(
        CALLED.validate_python({"resultType": "input_required", "requestState": "x"}), mcp_types.InputRequiredResult
    )


@pytest.mark.parametrize("task", [{}, {"taskId": ""}, {"taskId": 7, "status": "working"}, {"taskId": "x" * 2_000}])
def test_a_task_without_an_id_that_can_be_kept_is_refused(task: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CALLED.validate_python({"task": task})


@pytest.mark.parametrize(
    ("told", "pause"),
    [
        (None, DEFAULT_PAUSE), ("soon", DEFAULT_PAUSE), (0, DEFAULT_PAUSE), (-5, DEFAULT_PAUSE), (1, LEAST_PAUSE),
        (7_000, 7.0), (1e12, LONGEST_PAUSE), (float("nan"), DEFAULT_PAUSE),
        pytest.param(10**400, LONGEST_PAUSE, id="huge"),
    ],
)  # fmt: skip
def test_the_servers_interval_is_kept_within_bounds(told: Any, pause: float) -> None:
    assert TaskState.model_validate({**OLDER, "status": "working", "pollInterval": told}).pause == pause


def test_the_sdk_takes_the_answer_to_a_call_that_has_become_a_task() -> None:
    line = b'{"jsonrpc":"2.0","id":3,"result":{"task":{"taskId":"id-1","status":"working"}}}'
    (message,) = decode(line, {3})
    assert isinstance(message, mcp_types.JSONRPCResponse)
    methods.validate_server_result("tools/call", "2025-11-25", message.result)
    assert message.result["task"] == {"taskId": "id-1", "status": "working"}


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ([{**NEWER, "status": "completed", "result": FAILED}], "tool_failed", "one.work failed."),
        ([{**NEWER, "status": "failed", "error": {"code": -32603, "message": "no quota"}}], "tool_failed", "no quota"),
        ([{**OLDER, "status": "failed"}, CallRefused("no quota")], "tool_failed", "no quota"),
        ([{**OLDER, "status": "failed"}, FAILED], "tool_failed", "one.work failed."),
        ([{**OLDER, "status": "cancelled", "statusMessage": "Too late."}], "task_cancelled", "Too late."),
        ([{**NEWER, "status": "completed", "result": {"other": 7}}], "tool_failed", "not a valid"),
        ([UnknownTask("no such task")], "task_lost", "has lost"),
        ([{**OLDER, "status": "completed"}, UnknownTask("no such task")], "task_lost", "has lost"),
        ([AnswerTooLarge()], "output_too_large", "more than"),
    ],
)  # fmt: skip
async def test_a_task_that_ends_badly_is_an_error_with_a_code(answers: list[Any], code: str, words: str) -> None:
    tasks, _ = tasks_of(REMOTE, *answers)
    response = await look_at(tasks, TASK, CONTEXT)
    assert isinstance(response, ErrorResponse)
    assert response.error == code
    assert words in response.message


async def test_a_result_is_in_the_state_or_asked_for() -> None:
    result = {"content": [{"type": "text", "text": "done"}]}
    for answers in ([{**NEWER, "status": "completed", "result": result}], [{**OLDER, "status": "completed"}, result]):
        tasks, fake = tasks_of(REMOTE, *answers)
        response = await look_at(tasks, TASK, CONTEXT)
        assert isinstance(response, ToolResponse)
        assert response.type == "block_output"
        assert [method for method, _ in fake.asked] == ["tasks/get", "tasks/result"][: len(answers)]


@pytest.mark.parametrize("failure", [ServerUnavailable(), ServerLost()])
async def test_a_server_that_is_away_is_asked_again_and_a_program_has_lost_its_tasks(failure: Exception) -> None:
    tasks, _ = tasks_of(REMOTE, failure)
    assert await look_at(tasks, TASK, CONTEXT) is None
    tasks, _ = tasks_of(PROGRAM, failure)
    with pytest.raises(TaskLost):
        await tasks.look(TASK)


@pytest.mark.parametrize(
    "answer", [{}, CallRefused("it has ended"), UnknownTask("what task?"), ServerLost(), AnswerTooLarge()]
)
async def test_a_cancel_is_sent_once_whatever_the_server_says(answer: dict[str, Any] | Exception) -> None:
    tasks, fake = tasks_of(REMOTE, answer)
    await tasks.cancel(TASK)
    assert [method for method, _ in fake.asked] == ["tasks/cancel"]


async def test_a_cancel_that_was_not_sent_can_be_repeated() -> None:
    tasks, _ = tasks_of(REMOTE, ServerUnavailable())
    with pytest.raises(ServerUnavailable):
        await tasks.cancel(TASK)


async def test_a_request_that_was_answered_is_not_answered_again_while_the_server_still_shows_it() -> None:
    """The server may take a while to see an answer that it has acknowledged (2026-07-28)."""
    waits = {**NEWER, "status": "input_required", "inputRequests": ASKS}
    more = {**waits, "inputRequests": {**ASKS, "second": ASKS["trip"]}}
    tasks, fake = tasks_of(REMOTE, waits, {}, waits, more)
    inputs = Inputs(REMOTE, CONTEXT, ToolCallPart("call", "one_work", {}), 0)
    state = await tasks.look(TASK)
    assert isinstance(state, TaskState)
    assert state.is_waiting
    assert await tasks.answer(TASK, state, inputs) is None
    method, params = fake.asked[-1]
    assert (method, params["inputResponses"]) == ("tasks/update", {"trip": {"action": "cancel"}})
    state = await tasks.look(TASK)
    assert isinstance(state, TaskState)
    assert not state.is_waiting
    state = await tasks.look(TASK)
    assert isinstance(state, TaskState)
    assert set(state.requests or ()) == {"second"}


async def test_tasks_of_two_sessions_may_have_the_same_id() -> None:
    """A program of each session counts its tasks from one."""
    waits = {**NEWER, "status": "input_required", "inputRequests": ASKS}
    tasks, _ = tasks_of(REMOTE, waits, {}, waits)
    mine, other = replace(TASK, whose="a"), replace(TASK, whose="b")
    state = await tasks.look(mine)
    assert isinstance(state, TaskState)
    await tasks.answer(mine, state, Inputs(REMOTE, CONTEXT, ToolCallPart("call", "one_work", {}), 0))
    state = await tasks.look(other)
    assert isinstance(state, TaskState)
    assert state.is_waiting


@pytest.mark.parametrize("key", ["{}", "{}" + "x" * 2_000])
async def test_a_task_that_asks_without_end_is_refused(key: str) -> None:
    """Else a server could ask the user for ever, and fill the memory with the names of its requests."""
    rounds = [{**NEWER, "status": "input_required", "inputRequests": {key.format(n): ASKS["trip"]}} for n in range(11)]
    tasks, _ = tasks_of(REMOTE, *(answer for one in rounds for answer in (one, {})))
    inputs = Inputs(REMOTE, CONTEXT, ToolCallPart("call", "one_work", {}), 0)

    async def answer_all() -> None:
        for _ in rounds:
            state = await tasks.look(TASK)
            assert isinstance(state, TaskState)
            await tasks.answer(TASK, state, inputs)

    with pytest.raises(CallRefused, match="more than 10 times"):
        await answer_all()


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 5}},
        {"method": "roots/list"},
        {"method": "no/such", "params": {}},
    ],
)
async def test_a_task_that_asks_for_what_it_does_not_get_is_stopped(request_: dict[str, Any]) -> None:
    waits = {**NEWER, "status": "input_required", "inputRequests": {"a": request_}}
    tasks, fake = tasks_of(REMOTE, waits, {})
    state = await tasks.look(TASK)
    assert isinstance(state, TaskState)
    response = await answer_to(tasks, TASK, state, ToolCallPart("call", "one_work", {}), CONTEXT, [])
    assert isinstance(response, ErrorResponse)
    assert response.error == "tool_failed"
    assert [method for method, _ in fake.asked] == ["tasks/get", "tasks/cancel"]


@pytest.mark.parametrize(
    ("kind", "server", "is_operation", "as_task", "beside"),
    [
        ("required", REMOTE, False, True, False),
        ("required", PROGRAM, True, True, True),
        ("optional", REMOTE, False, False, False),
        ("optional", REMOTE, True, True, True),
        ("optional", PROGRAM, True, False, True),
        ("forbidden", REMOTE, True, False, True),
        (None, REMOTE, True, False, True),
    ],
)
async def test_calls_ask_to_become_tasks_if_they_must_or_are_operations_elsewhere(
    kind: str | None, server: Server, is_operation: bool, as_task: bool, beside: bool
) -> None:
    asked: list[int | None] = []

    async def call(name: str, arguments: dict[str, Any], caller: Any) -> mcp_types.CallToolResult:
        asked.append(caller.task_ttl)
        return mcp_types.CallToolResult(content=[])

    server = server.model_copy(update={"operations": frozenset({"work"} if is_operation else ())})
    execution = None if kind is None else mcp_types.ToolExecution(task_support=cast(Any, kind))
    remote = mcp_types.Tool(name="work", input_schema={"type": "object"}, execution=execution)
    (tool,) = offered_tools([remote], server, call).tools.values()
    assert tool.long_running is beside
    context = replace(CONTEXT, operations=cast(Any, SimpleNamespace(limit=3_600.0)))
    await tool.run(tool.input_type.model_validate({}), context)
    assert asked == [3_600_000 if as_task else None]


@pytest.mark.parametrize("failure", [CallRefused("what?"), AnswerTooLarge()])
async def test_a_task_is_stopped_if_nobody_understands_what_is_said_of_it(failure: Exception) -> None:
    tasks, fake = tasks_of(REMOTE, failure, {})
    assert isinstance(await look_at(tasks, TASK, CONTEXT), ErrorResponse)
    await asyncio.gather(*tasks._cancels)
    assert [method for method, _ in fake.asked] == ["tasks/get", "tasks/cancel"]


@pytest.mark.parametrize(("method", "raised"), [("tasks/get", ServerBusy), ("tasks/result", CallRefused)])
async def test_an_internal_error_ends_no_task_before_it_is_known_to_have_failed(
    method: str, raised: type[Exception]
) -> None:
    job: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    job.set_exception(MCPError(mcp_types.INTERNAL_ERROR, "the database restarts"))
    with pytest.raises(raised):
        _outcome(cast(Any, job), SimpleNamespace(method=method))
