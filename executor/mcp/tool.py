"""An adapter that makes a tool of an MCP server a `Tool`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import mcp_types
from pydantic import RootModel

from backend.chat.models import ToolCallPart
from backend.chat.outcomes import RemoteTask, ToolWork
from backend.chat.protocol.tool_responses import ToolResponse
from executor.llm.clean_text import clean
from executor.llm.model import ToolSpec
from executor.mcp.answers import answer_of
from executor.mcp.elicitations import links_to_open
from executor.mcp.failure_responses import failure_response
from executor.mcp.failures import (
    CALL_FAILURES,
    CallRefused,
    LinksToOpen,
    ParamsRefused,
    SignInLink,
)
from executor.mcp.inputs import Answers, Inputs, ServerRequests
from executor.mcp.names import Names
from executor.mcp.schemas import InputSchema, input_schema
from executor.mcp.server_entry import HttpServer, Server, StdioServer
from executor.mcp.task_outcomes import look_at, with_notes
from executor.mcp.tasks import Answered, ServerTasks, TaskState
from executor.mcp.unions import UnusableSchema
from executor.tools.context import Claims, ToolContext
from executor.tools.tool import OperationAccepted, StoredResponse, Tool, outcome_of

MAX_DESCRIPTION_CHARS = 4_096
MAX_ROUNDS = 10
"""Times that a tool may ask for something before it answers."""
MAX_SIGN_INS = 2
"""Times that a call waits for the user to sign in. Its first sign-in usually ends the turn, and is not counted."""
PATIENCE, SLACK, FIRST_LOOK = 10.0, 5.0, 0.5
"""Seconds that a turn waits for a call that has become a task; seconds until an executor polls it if the turn
does not; and seconds before the first poll."""
STATE_ONLY_PAUSE = 0.25
"""Seconds before a call is repeated that asked for nothing but its own state."""
Progress = Callable[[float, float | None, str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Caller:
    """The session and the user of a call, and how it waits and reports. `long` calls are operations.

    A call with `task_ttl` asks to become a task, which the server keeps for `task_ttl` milliseconds.
    """

    session: str
    user: str
    long: bool = False
    untimed: Callable[[], AbstractContextManager[None]] = nullcontext
    progress: Progress | None = None
    inputs: Inputs | None = None
    answers: Answers = field(default_factory=Answers)
    task_ttl: int | None = None
    claims: Claims = ()


Call = Callable[[str, dict[str, Any], Caller], Awaitable[Answered]]


class Arguments(RootModel[dict[str, Any]]):
    """Any JSON object. The server validates it and reports what is wrong.

    A schema from an unknown source, with its patterns, must not run in the process of all turns.
    """


class McpTool(Tool[Arguments]):
    """A tool of `server`. `call` sends a call to it and raises as `Connection.call` does.

    `tasks` are those that its calls may become at the server; None if they cannot.
    """

    input_type = Arguments

    def __init__(
        self,
        name: str,
        remote: mcp_types.Tool,
        server: Server,
        schema: InputSchema,
        call: Call,
        tasks: ServerTasks | None = None,
    ) -> None:
        self._name = name
        self._remote = remote
        self._server = server
        self._schema = schema
        self._call = call
        self._tasks = tasks
        self._spec = ToolSpec(name, self.description, schema.parameters)

    @property
    def name(self) -> str:
        return self._name

    @property
    def description(self) -> str:
        return clean(self._remote.description or self._title)[:MAX_DESCRIPTION_CHARS]

    @property
    def idempotent(self) -> bool:
        hints = self._remote.annotations
        hinted = hints is not None and bool(hints.idempotent_hint or hints.read_only_hint)
        return hinted or self._remote.name in self._server.idempotent

    @property
    def server(self) -> str:
        return self._server.name

    @property
    def destructive(self) -> bool:
        """True unless the server says otherwise, which is the default of `destructiveHint` (MCP 2025-11-25)."""
        hints = self._remote.annotations
        return hints is None or not (hints.read_only_hint or hints.destructive_hint is False)

    @property
    def long_running(self) -> bool:
        return self._remote.name in self._server.operations

    @property
    def _is_task(self) -> bool:
        """Returns True if calls ask to become tasks (2025-11-25): those that must, and operations that may.

        Operations at programs do not ask unless they must: the program, and with it the task, ends with its executor.
        """
        support = None if self._remote.execution is None else self._remote.execution.task_support
        may = isinstance(self._server, HttpServer) and self.long_running
        return support == "required" or (support == "optional" and may)

    @property
    def time_limit(self) -> float | None:
        return self._server.timeout

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    @property
    def _title(self) -> str:
        hints = self._remote.annotations
        return self._remote.title or (hints.title if hints is not None else None) or self._remote.name

    async def run(self, call: Arguments, context: ToolContext) -> ToolResponse | OperationAccepted | StoredResponse:
        session, block_id = context.session_id, f"{self._server.name}.{self._remote.name}"
        id = context.tool_call_id if context.resumed is None else context.resumed.work.tool_call_id
        made = ToolCallPart(id, self.name, call.root)
        inputs = Inputs(self._server, context, made, self._server.wait)
        caller = Caller(
            session,
            context.owner,
            self.long_running,
            context.untimed,
            context.progress,
            inputs,
            claims=context.claims,
        )
        if self._is_task:
            caller = replace(caller, task_ttl=int(context.operations.limit * 1000))
        try:
            result = await self._called(self._schema.restored(call.root), caller, inputs)
        except CALL_FAILURES as failure:
            response = failure_response(failure, self._server, block_id, context, repeatable=self.idempotent)
        else:
            if not isinstance(result, mcp_types.CallToolResult):
                return result
            response = await answer_of(result, block_id, self._title, context, self._server)
        return with_notes(response, inputs.notes)

    async def _called(
        self, arguments: dict[str, Any], caller: Caller, inputs: Inputs
    ) -> mcp_types.CallToolResult | OperationAccepted | StoredResponse:
        """Calls the tool, again each time that it asks for something. Raises the failures of a call.

        The turn ends with the first question to the user, unless the call continues one or runs beside its turn. If the
        server does not know its state any longer, the call begins again.
        """
        resumed = inputs.context.resumed
        may_end = resumed is None and not self.long_running
        if resumed is not None and resumed.given is not None:
            caller = replace(caller, answers=await inputs.resumed(resumed))
        signed_in = 0
        for _ in range(MAX_ROUNDS):
            try:
                result = await self._call(self._remote.name, arguments, caller)
            except ParamsRefused:
                if caller.answers.state is None or not inputs.begin_again():
                    raise
                caller = replace(caller, answers=Answers())
                continue
            except LinksToOpen as links:
                asked = ServerRequests(links_to_open(links.elicitations), again=True)
                if may_end and (later := await inputs.ask_later(asked)) is not None:
                    return later
                signed_in += isinstance(links, SignInLink)
                if not 0 < signed_in <= MAX_SIGN_INS or not await inputs.opened(asked):
                    raise
                continue
            if isinstance(result, mcp_types.CallToolResult):
                return result
            if isinstance(result, TaskState):
                return await self._handed_over(result, inputs)
            asked = ServerRequests(result.input_requests or {}, result.request_state)
            if may_end and (later := await inputs.ask_later(asked)) is not None:
                return later
            caller = replace(caller, answers=await inputs.answers(asked, {}))
            if not asked.requests:
                await asyncio.sleep(STATE_ONLY_PAUSE)
        raise CallRefused(f"The tool asked for more {MAX_ROUNDS} times in a row.")

    async def _handed_over(self, state: TaskState, inputs: Inputs) -> OperationAccepted | StoredResponse:
        """Makes the call, which is a task at the server now, an operation, unless it ends within PATIENCE.

        An operation of this process becomes one of the server's at once. Raises TooManyOperations and Unavailable.
        """
        assert self._tasks is not None, "the connection gives its tasks to all its tools"
        context = inputs.context
        whose = {"session": context.session_id, "user": context.owner, None: None}[self._server.per]
        task = RemoteTask(self._server.name, self._remote.name, state.id, whose)
        work = ToolWork(context.task_id, self.name, context.tool_call_id, inputs.call.input, remote=task.server)
        work = replace(work, notes=tuple(inputs.notes))
        ends_with_us, due_in = isinstance(self._server, StdioServer), 0.0 if self.long_running else PATIENCE + SLACK
        try:
            started = await context.operations.register_remote(work, task, ends_with_us=ends_with_us, due_in=due_in)
        except BaseException:  # nobody would ask for it again
            self._tasks.abandon(task)
            raise
        if started.already_started:  # by an earlier attempt, whose task goes on
            self._tasks.abandon(task)
            return OperationAccepted(started.operation, already_started=True)
        if self.long_running:
            return OperationAccepted(started.operation)
        found = await self._soon_ended(self._tasks, task, state, context)
        if isinstance(found, TaskState):
            await context.operations.leave_remote(started.operation, due_in=0.0 if found.is_waiting else found.pause)
            return OperationAccepted(started.operation)
        output = await context.operations.settle_remote(started.operation, outcome_of(with_notes(found, inputs.notes)))
        return OperationAccepted(started.operation) if output is None else StoredResponse(output)

    async def _soon_ended(
        self, tasks: ServerTasks, task: RemoteTask, state: TaskState, context: ToolContext
    ) -> ToolResponse | TaskState:
        """Returns the response of a task that ends within PATIENCE, else its state: it may wait for the user.

        The first polls come sooner than the server asks for, so that the turn goes on as soon as there is a result.
        """
        pause = FIRST_LOOK
        with context.untimed(), suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not state.is_waiting:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, state.pause)
                    found = await look_at(tasks, task, context)
                    if isinstance(found, ToolResponse):
                        return found
                    if found is not None:
                        state = found
                        await _show(state, context)
        return state


async def _show(state: TaskState, context: ToolContext) -> None:
    if context.progress is not None and state.words is not None:
        await context.progress(0, None, state.words)


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The tools of a server by their names in prompts, and for each that is left out, why."""

    tools: dict[str, McpTool]
    left_out: dict[str, str]


def offered_tools(
    remote: Iterable[mcp_types.Tool],
    server: Server,
    call: Call,
    names: Names | None = None,
    tasks: ServerTasks | None = None,
    *,
    runs_tasks: bool = True,
) -> OfferedTools:
    """Returns the tools that the file allows.

    Those that cannot be sent to a model are left out, and those that demand a task of a server that runs none.
    """
    allowed = {tool.name: tool for tool in remote if server.offers(tool.name)}
    named = (names or Names([server.name])).of(server.name, allowed)
    offered = OfferedTools({}, {})
    for remote_name, tool in allowed.items():
        name = named[remote_name]
        if not runs_tasks and tool.execution is not None and tool.execution.task_support == "required":
            offered.left_out[remote_name] = "it only runs as a task of the protocol, and its server runs none"
        elif name in offered.tools or (names is not None and not names.may_be(server.name, name)):
            offered.left_out[remote_name] = "its name is another tool's"
        else:
            try:
                offered.tools[name] = McpTool(name, tool, server, input_schema(tool.input_schema), call, tasks)
            except UnusableSchema as why:
                offered.left_out[remote_name] = f"of its input schema: {why}"
            except (ValueError, RecursionError):
                offered.left_out[remote_name] = "of its input schema: it cannot be read"
    return offered


def unknown_tool(
    name: str, server: Server, call: Call, names: Names | None = None, tasks: ServerTasks | None = None
) -> McpTool | None:
    """Returns a tool for a server that was never connected, so that its tools are unknown.

    None if a tool with that name cannot belong to the server, or is not offered.
    """
    names = names or Names([server.name])
    if not names.may_be(server.name, name):
        return None
    in_file = names.of(server.name, sorted({*(server.tools or ()), *server.excluded}))
    called = {prompt_name: remote_name for remote_name, prompt_name in in_file.items()}
    remote_name = called.get(name, name.removeprefix(names.prefix(server.name)))
    if not server.offers(remote_name):
        return None
    remote = mcp_types.Tool(name=remote_name, input_schema={"type": "object"})
    return McpTool(name, remote, server, input_schema(remote.input_schema), call, tasks)
