"""The tool that reads resources of a server, to which answers of its tools may link."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import mcp_types
from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import ToolResponse
from executor.mcp.answers import answer_of
from executor.mcp.failure_responses import failure_response
from executor.mcp.failures import CALL_FAILURES
from executor.mcp.outputs import result_of_resource
from executor.mcp.server_entry import Server
from executor.mcp.tool import Caller
from executor.tools.context import ToolContext
from executor.tools.tool import Tool

READ_RESOURCE = "read_resource"
Read = Callable[[str, Caller], Awaitable[mcp_types.ReadResourceResult]]


class ReadResourceArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    uri: str = Field(min_length=1, max_length=4_096, description="The `uri` of a `resource_link`.")


class ResourceTool(Tool[ReadResourceArgs]):
    """Reads a resource of one server. The server decides what can be read."""

    input_type = ReadResourceArgs
    idempotent = True

    def __init__(self, name: str, server: Server, read: Read) -> None:
        self._name = name
        self._server = server
        self._read = read

    @property
    def name(self) -> str:
        return self._name

    @property
    def description(self) -> str:
        return f"Reads what a `resource_link` in an answer of the tool server {self._server.name} points to."

    @property
    def server(self) -> str:
        return self._server.name

    @property
    def time_limit(self) -> float | None:
        return self._server.timeout

    async def run(self, call: ReadResourceArgs, context: ToolContext) -> ToolResponse:
        block_id = f"{self._server.name}.{READ_RESOURCE}"
        try:
            result = await self._read(
                call.uri, Caller(context.session_id, context.owner, untimed=context.untimed, claims=context.claims)
            )
        except CALL_FAILURES as failure:
            return failure_response(failure, self._server, block_id, context, repeatable=True)
        return await answer_of(result_of_resource(result), block_id, "Resource", context, self._server)
