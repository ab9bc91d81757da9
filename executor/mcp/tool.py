"""An adapter that makes a tool of an MCP server a `Tool`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import mcp_types
from pydantic import RootModel

from backend.chat.models import ToolCallPart
from backend.chat.protocol.tool_responses import ErrorResponse, ToolResponse
from executor.agent.calls import UNKNOWN_EFFECT
from executor.llm.clean_text import clean
from executor.llm.model import ToolSpec
from executor.mcp.elicitations import links_to_open
from executor.mcp.failures import (
    CALL_FAILURES,
    AnswerTooLarge,
    CallRefused,
    LinksToOpen,
    ParamsRefused,
    ServerBusy,
    ServerLost,
    ServerUnavailable,
    without_secrets,
)
from executor.mcp.inputs import Answers, Asked, Inputs
from executor.mcp.messages import MAX_MESSAGE_BYTES
from executor.mcp.names import Names
from executor.mcp.outputs import failed, response_of, too_large
from executor.mcp.schemas import InputSchema, input_schema
from executor.mcp.server_entry import Server
from executor.mcp.unions import UnusableSchema
from executor.tools.context import ToolContext
from executor.tools.tool import Accepted, Stored, Tool

MAX_DESCRIPTION_CHARS = 4_096
MAX_ROUNDS = 10
"""Times that a tool may ask for something before it answers."""
STATE_ONLY_PAUSE = 0.25
"""Seconds before a call is repeated that asked for nothing but its own state."""
Progress = Callable[[float, float | None, str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Caller:
    """The session and the user of a call, and how it waits and reports. `long` calls are operations."""

    session: str
    user: str
    long: bool = False
    untimed: Callable[[], AbstractContextManager[None]] = nullcontext
    progress: Progress | None = None
    inputs: Inputs | None = None
    answers: Answers = field(default_factory=Answers)


Called = mcp_types.CallToolResult | mcp_types.InputRequiredResult
Call = Callable[[str, dict[str, Any], Caller], Awaitable[Called]]


class Arguments(RootModel[dict[str, Any]]):
    """Any JSON object. The server validates it and reports what is wrong.

    A schema from an unknown source, with its patterns, must not run in the process of all turns.
    """


class McpTool(Tool[Arguments]):
    """A tool of `server`. `call` sends a call to it and raises as `Connection.call` does."""

    input_type = Arguments

    def __init__(self, name: str, remote: mcp_types.Tool, server: Server, schema: InputSchema, call: Call) -> None:
        self._name = name
        self._remote = remote
        self._server = server
        self._schema = schema
        self._call = call
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
    def time_limit(self) -> float | None:
        return self._server.timeout

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    @property
    def _title(self) -> str:
        hints = self._remote.annotations
        return self._remote.title or (hints.title if hints is not None else None) or self._remote.name

    async def run(self, call: Arguments, context: ToolContext) -> ToolResponse | Accepted | Stored:
        session, block_id = context.session_id, f"{self._server.name}.{self._remote.name}"
        id = context.tool_call_id if context.resumed is None else context.resumed.work.tool_call_id
        made = ToolCallPart(id, self.name, call.root)
        inputs = Inputs(self._server, context, made, self._server.wait)
        caller = Caller(session, context.owner, self.long_running, context.untimed, context.progress, inputs)
        try:
            result = await self._called(self._schema.restored(call.root), caller, inputs)
        except CALL_FAILURES as failure:
            response = failure_response(failure, self._server, block_id, context, repeatable=self.idempotent)
        else:
            if not isinstance(result, mcp_types.CallToolResult):
                return result
            response = masked(response_of(result, block_id, self._title, session), self._server)
        if not inputs.notes:
            return response
        return response.model_copy(update={"message": " ".join([response.message, *inputs.notes])})

    async def _called(
        self, arguments: dict[str, Any], caller: Caller, inputs: Inputs
    ) -> mcp_types.CallToolResult | Accepted | Stored:
        """Calls the tool, again each time that it asks for something. Raises the failures of a call.

        The turn ends with the first question to the user, unless the call continues one or runs beside its turn. If the
        server does not know its state any longer, the call begins again.
        """
        resumed = inputs.context.resumed
        may_end = resumed is None and not self.long_running
        if resumed is not None and resumed.given is not None:
            caller = replace(caller, answers=await inputs.resumed(resumed))
        for _ in range(MAX_ROUNDS):
            try:
                result = await self._call(self._remote.name, arguments, caller)
            except ParamsRefused:
                if caller.answers.state is None or not inputs.begin_again():
                    raise
                caller = replace(caller, answers=Answers())
                continue
            except LinksToOpen as links:
                asked = Asked(links_to_open(links.elicitations), again=True)
                if not may_end or (later := await inputs.ask_later(asked)) is None:
                    raise
                return later
            if isinstance(result, mcp_types.CallToolResult):
                return result
            asked = Asked(result.input_requests or {}, result.request_state)
            if may_end and (later := await inputs.ask_later(asked)) is not None:
                return later
            caller = replace(caller, answers=await inputs.answers(asked, {}))
            if not asked.requests:
                await asyncio.sleep(STATE_ONLY_PAUSE)
        raise CallRefused(f"The tool asked for more {MAX_ROUNDS} times in a row.")


def masked(response: ToolResponse, server: Server) -> ToolResponse:
    """Returns the response, without the server's secrets in the words of an error."""
    if not isinstance(response, ErrorResponse):
        return response
    return response.model_copy(update={"message": without_secrets(response.message, server.secrets)})


def failure_response(
    failure: Exception, server: Server, block_id: str, context: ToolContext, *, repeatable: bool
) -> ToolResponse:
    """Returns the response for a failed call, which is one of CALL_FAILURES."""
    return masked(_failure(failure, server.name, block_id, context, repeatable=repeatable), server)


def _failure(
    failure: Exception, server: str, block_id: str, context: ToolContext, *, repeatable: bool
) -> ErrorResponse:
    session = context.session_id
    match failure:
        case ServerUnavailable():
            why = f" ({failure})" if str(failure) else ""
            message = f"The tool server {server} is not available now{why}. Go on without it, or try again later."
            return ErrorResponse(message=message, session_id=session, error="tool_unavailable")
        case ServerBusy():
            message = f"The tool server {server} is busy with other calls. The call did not run; try again later."
            return ErrorResponse(message=message, session_id=session, error="tool_unavailable")
        case ServerLost() if repeatable:
            message = f"The tool server {server} went away during the call. The call may be repeated."
            return ErrorResponse(message=message, session_id=session, error="tool_unavailable")
        case ServerLost():
            message = f"The tool server {server} went away during the call; whether it took effect is unknown."
            return ErrorResponse(message=message, session_id=session, error=UNKNOWN_EFFECT)
        case AnswerTooLarge():
            return too_large(block_id, f"more than {MAX_MESSAGE_BYTES} bytes", session)
        case _:
            return failed(str(failure), session)


@dataclass(frozen=True, slots=True)
class Offered:
    """The tools of a server by their names in prompts, and for each that is left out, why."""

    tools: dict[str, McpTool]
    left_out: dict[str, str]


def offered_tools(remote: Iterable[mcp_types.Tool], server: Server, call: Call, names: Names | None = None) -> Offered:
    """Returns the tools that the file allows. Those that cannot be sent to a model are left out."""
    allowed = {tool.name: tool for tool in remote if server.offers(tool.name)}
    named = (names or Names([server.name])).of(server.name, allowed)
    offered = Offered({}, {})
    for remote_name, tool in allowed.items():
        name = named[remote_name]
        if tool.execution is not None and tool.execution.task_support == "required":
            offered.left_out[remote_name] = "it only runs as a task of the protocol, which is not supported"
        elif name in offered.tools or (names is not None and not names.may_be(server.name, name)):
            offered.left_out[remote_name] = "its name is another tool's"
        else:
            try:
                offered.tools[name] = McpTool(name, tool, server, input_schema(tool.input_schema), call)
            except UnusableSchema as why:
                offered.left_out[remote_name] = f"of its input schema: {why}"
            except (ValueError, RecursionError):
                offered.left_out[remote_name] = "of its input schema: it cannot be read"
    return offered


def unknown_tool(name: str, server: Server, call: Call, names: Names | None = None) -> McpTool | None:
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
    return McpTool(name, remote, server, input_schema(remote.input_schema), call)
