"""A tool of an MCP server, as a tool of ours."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import mcp_types
import orjson
from pydantic import RootModel

from backend.chat.models import Json
from backend.chat.outputs import safe_json
from backend.chat.tool_responses import ErrorResponse, ToolResponse
from executor.agent.calls import UNKNOWN_EFFECT
from executor.llm.clean_text import clean
from executor.llm.model import ToolSpec
from executor.mcp.failures import CallRefused, ServerAway, ServerLost
from executor.mcp.outputs import failed, response_of
from executor.mcp.servers_file import Server
from executor.tools.tool import Tool, ToolContext

MAX_NAME_CHARS = 64
MAX_SCHEMA_BYTES, MAX_DESCRIPTION_CHARS = 32_768, 4_096
_REFUSED_AT_THE_ROOT = frozenset({"oneOf", "anyOf", "allOf", "not", "$schema"})

Call = Callable[[str, dict[str, Any]], Awaitable[mcp_types.CallToolResult]]


class Arguments(RootModel[dict[str, Any]]):
    """Any object. Whether it fits is the server's to say, which checks it anyway and says what is wrong with it: a
    schema of unknown origin, with its patterns, is not run in the process of all turns."""


class McpTool(Tool[Arguments]):
    """`call` sends a call to the server, as `Connection.call` does."""

    input_type = Arguments

    def __init__(self, name: str, told: mcp_types.Tool, server: Server, call: Call) -> None:
        self._name = name
        self._told = told
        self._server = server
        self._call = call
        self._spec = ToolSpec(name, self.description, _schema(told.input_schema))

    @property
    def name(self) -> str:
        return self._name

    @property
    def description(self) -> str:
        return clean(self._told.description or self._title)[:MAX_DESCRIPTION_CHARS]

    @property
    def idempotent(self) -> bool:
        hints = self._told.annotations
        hinted = hints is not None and bool(hints.idempotent_hint or hints.read_only_hint)
        return hinted or self._told.name in self._server.idempotent

    @property
    def long_running(self) -> bool:
        return self._told.name in self._server.operations

    @property
    def time_limit(self) -> float | None:
        return self._server.timeout

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    @property
    def fits_in_a_prompt(self) -> bool:
        """Whether its schema is JSON that a provider can be sent, and not too long."""
        try:
            return len(orjson.dumps(self._spec.parameters)) <= MAX_SCHEMA_BYTES
        except TypeError:
            return False

    @property
    def _title(self) -> str:
        hints = self._told.annotations
        return self._told.title or (hints.title if hints is not None else None) or self._told.name

    async def run(self, call: Arguments, context: ToolContext) -> ToolResponse:
        session, name = context.session_id, self._server.name
        try:
            result = await self._call(self._told.name, call.root)
        except ServerAway:
            message = f"The tool server {name} is not available now. Go on without it, or try again later."
            return ErrorResponse(message=message, session_id=session, error="tool_unavailable")
        except ServerLost:
            if self.idempotent:
                message = f"The tool server {name} went away during the call. The call may be repeated."
                return ErrorResponse(message=message, session_id=session, error="tool_unavailable")
            message = f"The tool server {name} went away during the call; whether it took effect is unknown."
            return ErrorResponse(message=message, session_id=session, error=UNKNOWN_EFFECT)
        except CallRefused as refusal:
            return failed(str(refusal), session)
        return response_of(result, f"{name}.{self._told.name}", self._title, session)


def offered_tools(told: Iterable[mcp_types.Tool], server: Server, call: Call) -> dict[str, McpTool]:
    """Those that the file allows and that can be sent to a model, by the name they have there."""
    allowed = {tool.name: tool for tool in told if server.tools is None or tool.name in server.tools}
    plain = {name: _cleaned(server, name) for name in allowed}
    shared = {name for name, count in Counter(plain.values()).items() if count > 1}
    tools: dict[str, McpTool] = {}
    for told_name, tool in allowed.items():
        name = plain[told_name]
        if len(name) > MAX_NAME_CHARS or name in shared:
            name = f"{name[: MAX_NAME_CHARS - 9]}_{hashlib.sha256(told_name.encode()).hexdigest()[:8]}"
        offered = McpTool(name, tool, server, call)
        if offered.fits_in_a_prompt:
            tools[name] = offered
    return tools


def unknown_tool(name: str, server: Server, call: Call) -> McpTool | None:
    """A tool of that name as a server may have it that was never there to be asked; None when it cannot be its."""
    told_name = name.removeprefix(_cleaned(server, ""))
    if told_name == name or not told_name:
        return None
    return McpTool(name, mcp_types.Tool(name=told_name, input_schema={"type": "object"}), server, call)


def _cleaned(server: Server, tool: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{server.name}_{tool}")


def _schema(told: dict[str, Json]) -> dict[str, Json]:
    """The server's schema as it is, but for what providers refuse at its root with the whole prompt."""
    kept = {key: value for key, value in told.items() if key not in _REFUSED_AT_THE_ROOT}
    return {"type": "object", "properties": {}, **safe_json(kept)}
