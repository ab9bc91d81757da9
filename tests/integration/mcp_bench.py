"""A bench for MCP servers: a toolbox with nothing but their tools, and the results that a model would get."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from backend.chat.models import ToolCallPart
from backend.chat.protocol.chunks import Chunk
from backend.chat.protocol.tool_responses import ErrorResponse, ToolResponse
from backend.config import load_settings
from backend.ids import SessionId, TaskId
from backend.postgres import Database
from executor.agent.calls import Calls
from executor.mcp import open_mcp
from executor.operations import Operations
from executor.tools.approval import Decision
from executor.tools.context import ToolContext
from executor.tools.tool import Tool, Toolbox
from tests import ROOT
from tests.fakes.careless_mcp_server import TOOLS
from tests.servers.starting import OutputFile, listens, until_ready
from tests.speed import limit

if TYPE_CHECKING:
    from executor.mcp.connection import Connection

LIMIT = limit(20)
HERE = {"PYTHONPATH": str(ROOT)}
FAKE = {"command": sys.executable, "args": ["-m", "tests.fakes.mcp_server"], "env": HERE}
CARELESS = {"command": sys.executable, "args": ["-m", "tests.fakes.careless_mcp_server"], "env": HERE}
PLAIN = {**CARELESS, "env": {**HERE, "TOOLS": json.dumps(TOOLS)}}
"""A server without the SDK, for tests of its life, not of its answers."""
OLDER = {"command": sys.executable, "args": ["-m", "tests.fakes.older_mcp_server"], "env": HERE}
SESSION = SessionId("s" * 16)


class NoOperations:
    """The operations of calls that begin none."""

    async def fail(self, *_: Any) -> None: ...


class ToolHost:
    def __init__(self, session: SessionId = SESSION) -> None:
        self._session = session

    def context_of(self, tool_call_id: str) -> ToolContext:
        return ToolContext(
            self._session, TaskId("t"), tool_call_id, None, cast(Database, None), cast(Operations, NoOperations())
        )  # unused

    async def check_claim(self) -> None: ...

    async def decision_for(self, tool: Tool[Any]) -> Decision:
        return Decision.ALLOW

    async def begin_run(self) -> None: ...

    async def other_questions_wait(self) -> bool:
        return False


class Bench:
    """A toolbox that holds nothing but what the servers offer."""

    def __init__(self, toolbox: Toolbox, seconds: float, servers: Sequence[Connection]) -> None:
        self.toolbox = toolbox
        self.servers = {server.server.name: server for server in servers}
        self._seconds = seconds

    @property
    def offered(self) -> set[str]:
        return {spec.name for spec in self.toolbox.specs}

    def tool(self, name: str) -> Tool[Any]:
        tool = self.toolbox.find(name)
        assert tool is not None, name
        return tool

    async def run(self, name: str, *, of: SessionId = SESSION, **arguments: Any) -> ToolResponse:
        """Runs a tool in a session. Returns its own response, before the loop around tools changes it."""
        tool = self.tool(name)
        call = tool.input_type.model_validate(arguments)
        async with asyncio.timeout(LIMIT):
            return await tool.run(call, replace(ToolHost().context_of("call"), session_id=of))

    async def step(self, *calls: tuple[str, Mapping[str, Any]]) -> list[Any]:
        """Makes these calls in parallel, as one step. Returns what the model is told."""
        return (await self.shown_step(*calls))[1]

    async def shown_step(
        self, *calls: tuple[str, Mapping[str, Any]], of: SessionId = SESSION
    ) -> tuple[list[Chunk], list[Any]]:
        """Makes these calls of a session as one step. Returns the chunks of the stream, and what the model is told."""
        parts = [ToolCallPart(f"call{n}", name, dict(arguments)) for n, (name, arguments) in enumerate(calls)]
        step = Calls(parts, self.toolbox, ToolHost(of), self._seconds)
        async with asyncio.timeout(LIMIT):
            chunks = [chunk async for chunk in step.run()]
        return chunks, [message.parts[0].output for message in step.stored_messages()]  # type: ignore[union-attr]

    async def until_answers(self, name: str, *, of: SessionId = SESSION, **arguments: Any) -> None:
        """Calls a tool until it answers without an error, for example after its server was replaced."""
        async with asyncio.timeout(LIMIT):
            while self.toolbox.find(name) is None or isinstance(
                await self.run(name, of=of, **arguments), ErrorResponse
            ):
                await asyncio.sleep(0.02)  # between two tries of a bounded wait

    async def until(self, so: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not so():
                await asyncio.sleep(0.02)  # between two looks of a bounded wait


@asynccontextmanager
async def bench(
    folder: Path, servers: Mapping[str, Any], *, tool_timeout: float = LIMIT, **settings: Any
) -> AsyncIterator[Bench]:
    """Opens a bench with the servers, from a settings file. All of them have ended when the block is left."""
    file = folder / "mcp.json"
    file.write_text(json.dumps({"mcpServers": servers}))
    loaded = load_settings(files=(), mcp_servers_file=file, tool_timeout=tool_timeout, **settings)
    async with open_mcp(loaded) as sources:
        yield Bench(Toolbox([], sources), tool_timeout, sources)


@asynccontextmanager
async def http_server(
    port: int, module: str = "tests.fakes.mcp_server", **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Starts a fake server over HTTP. Kills it when the block is left."""
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, str(port)),
            cwd=ROOT, stdout=output_file, stderr=output_file, env={**os.environ, **environment},
        )  # fmt: skip
        try:
            await until_ready(process, "the fake MCP server", lambda: listens(port), output_file.tail)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
