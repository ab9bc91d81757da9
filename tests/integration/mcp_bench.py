"""A toolbox that holds nothing but what MCP servers offer, real ones, and what the model would be told."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from backend.chat.models import ToolCallPart
from backend.chat.tool_responses import ToolResponse
from backend.config import load_settings
from backend.ids import SessionId, TaskId
from backend.postgres import Database
from executor.agent.calls import Calls
from executor.mcp import open_mcp
from executor.operations import Operations
from executor.tools.tool import Tool, Toolbox, ToolContext
from tests.e2e.stack import ROOT
from tests.servers.starting import Words, until_ready
from tests.speed import limit

LIMIT = limit(20)
HERE = {"PYTHONPATH": str(ROOT)}
FAKE = {"command": sys.executable, "args": ["-m", "tests.fakes.mcp_server"], "env": HERE}
OLDER = {"command": sys.executable, "args": ["-m", "tests.fakes.older_mcp_server"], "env": HERE}
SESSION = SessionId("s" * 16)


class Desk:
    def context_of(self, tool_call_id: str) -> ToolContext:
        return ToolContext(
            SESSION, TaskId("t"), tool_call_id, None, cast(Database, None), cast(Operations, None)
        )  # unused

    async def check_claim(self) -> None: ...


class Bench:
    """A toolbox that holds nothing but what the servers offer."""

    def __init__(self, toolbox: Toolbox, seconds: float) -> None:
        self.toolbox = toolbox
        self._seconds = seconds

    @property
    def offered(self) -> set[str]:
        return {spec.name for spec in self.toolbox.specs}

    def tool(self, name: str) -> Tool[Any]:
        tool = self.toolbox.find(name)
        assert tool is not None, name
        return tool

    async def run(self, name: str, **arguments: Any) -> ToolResponse:
        """The tool's response itself, without what the loop around tools makes of it."""
        tool = self.tool(name)
        call = tool.input_type.model_validate(arguments)
        async with asyncio.timeout(LIMIT):
            return await tool.run(call, Desk().context_of("call"))

    async def step(self, *calls: tuple[str, Mapping[str, Any]]) -> list[Any]:
        """What the model is told of these parallel calls of one step."""
        parts = [ToolCallPart(f"call{n}", name, dict(arguments)) for n, (name, arguments) in enumerate(calls)]
        step = Calls(parts, self.toolbox, Desk(), self._seconds)
        async with asyncio.timeout(LIMIT):
            async for _ in step.run():
                pass
        return [message.parts[0].output for message in step.messages()]  # type: ignore[union-attr]

    async def until(self, so: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not so():
                await asyncio.sleep(0.02)  # between two looks of a bounded wait


@asynccontextmanager
async def bench(folder: Path, servers: Mapping[str, Any], *, tool_timeout: float = LIMIT) -> AsyncIterator[Bench]:
    """The servers as a settings file names them; all gone when the block is left."""
    file = folder / "mcp.json"
    file.write_text(json.dumps({"mcpServers": servers}))
    settings = load_settings(files=(), mcp_servers_file=file, tool_timeout=tool_timeout)
    async with open_mcp(settings) as sources:
        yield Bench(Toolbox([], sources), tool_timeout)


@asynccontextmanager
async def http_server(port: int, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The fake server over HTTP; killed when the block is left."""
    with Words() as words:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fakes.mcp_server", str(port)),
            cwd=ROOT, stdout=words, stderr=words, env={**os.environ, **environment},
        )  # fmt: skip
        try:
            await until_ready(process, "the fake MCP server", lambda: listens(port), words.tail)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
