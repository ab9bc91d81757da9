"""The connection to one MCP server: made, looked after and made again, for as long as the process runs."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import mcp_types
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from pydantic import TypeAdapter, ValidationError

from backend.logs import Trouble
from executor.mcp.failures import CallRefused, ServerAway, ServerGone, ServerLost, why_gone
from executor.mcp.http import reach_server
from executor.mcp.servers_file import Server, StdioServer
from executor.mcp.stdio import run_program
from executor.mcp.tool import McpTool, offered_tools, unknown_tool

CONNECTED_WITHIN = 30.0
LOOK_EVERY, LOOK_WITHIN, LOOK_PAUSE = 30.0, 30.0, 0.2
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_AFTER = 60.0
MAX_CALLS = 16
MAX_PAGES, MAX_TOOLS = 20, 128
US = mcp_types.Implementation(name="copilot-chat", version="1")
_Result: TypeAdapter[mcp_types.CallToolResult | mcp_types.InputRequiredResult] = TypeAdapter(
    mcp_types.CallToolResult | mcp_types.InputRequiredResult
)
logger = logging.getLogger(__name__)


class Connection:
    """A ToolSource. One job keeps it (the SDK's contexts are left by whoever entered them); calls come from any job.

    `call_limit` is how long a call may take at the most, in seconds. `tried` is set when it is known whether the
    server is there.
    """

    def __init__(self, server: Server, call_limit: float) -> None:
        self.server = server
        self.tried = asyncio.Event()
        self._call_limit = max(server.timeout or 0.0, call_limit)
        self._client: Client | None = None
        self._known: dict[str, McpTool] | None = None
        self._look_now = asyncio.Event()
        self._room = asyncio.Semaphore(MAX_CALLS)
        self._calls: set[asyncio.Task[Any]] = set()
        self._trouble = Trouble(logger, "an MCP server is away", server=server.name)

    @property
    def tools(self) -> Mapping[str, McpTool]:
        """The server's; none of them while it is away."""
        return self._known if self._client is not None and self._known is not None else {}

    def find(self, name: str) -> McpTool | None:
        if self._known is None:
            return unknown_tool(name, self.server, self.call)
        return self._known.get(name)

    async def call(self, tool: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        """The tool's result, its own errors included. Cancelling it tells the server, and waits for nobody.

        Raises ServerAway, ServerLost or CallRefused.
        """
        await self._room.acquire()
        if self._client is None:
            self._room.release()
            raise ServerAway
        job = asyncio.create_task(_call(self._client, tool, arguments))
        self._calls.add(job)
        job.add_done_callback(self._over)
        try:
            await asyncio.wait({job})
        finally:
            job.cancel()
        return self._outcome(job)

    def _over(self, job: asyncio.Task[Any]) -> None:
        self._calls.discard(job)
        self._room.release()
        if not job.cancelled() and job.exception() is not None:
            self._look_now.set()

    def _outcome(self, job: asyncio.Task[mcp_types.CallToolResult]) -> mcp_types.CallToolResult:
        if job.cancelled():
            raise ServerLost
        try:
            return job.result()
        except MCPError as error:
            if error.code == mcp_types.CONNECTION_CLOSED:
                raise ServerLost from None
            raise CallRefused(error.message) from None
        except ValidationError:
            raise CallRefused("The server's answer is no result of a tool.") from None

    async def keep(self) -> None:
        """Never returns. Pauses between tries, the longer the more often it failed or was soon lost."""
        pause = FIRST_PAUSE
        while True:
            begun = time.monotonic()
            try:
                await self._stay_connected()
            except Exception as error:  # noqa: BLE001 - the boundary around servers of others: tried again in any case
                self._trouble.met(why_gone(error))
            self.tried.set()
            if time.monotonic() - begun > STEADY_AFTER:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _stay_connected(self) -> None:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(CONNECTED_WITHIN):
                client = await stack.enter_async_context(self._new_client())
                self._known = await self._offered(client)
            self._client = client
            self._trouble.over()
            self.tried.set()
            logger.info("MCP server is connected", extra={"server": self.server.name, "tools": len(self._known)})
            try:
                await self._look_after(client)
            finally:
                self._client = None

    def _new_client(self) -> Client:
        if isinstance(self.server, StdioServer):
            transport = run_program(self.server)
        else:
            transport = reach_server(self.server, self._call_limit)
        return Client(transport, client_info=US, message_handler=self._hear, cache=None)

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._look_now.set()

    async def _look_after(self, client: Client) -> None:
        """Asks for the tools now and then, when they have changed, and when a call failed. Raises when it is lost."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._look_now.wait()
            except TimeoutError:
                pass
            self._look_now.clear()
            try:
                async with asyncio.timeout(LOOK_WITHIN):
                    self._known = await self._offered(client)
            except TimeoutError:
                if not self._calls:  # else it may be one that does one thing at a time
                    raise ServerGone("it does not answer") from None
            await asyncio.sleep(LOOK_PAUSE)  # whatever it says how often

    async def _offered(self, client: Client) -> dict[str, McpTool]:
        told: list[mcp_types.Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES if client.server_capabilities.tools is not None else 0):
            page = await client.list_tools(cursor=cursor)
            told += page.tools
            cursor = page.next_cursor
            if cursor is None or len(told) >= MAX_TOOLS:
                break
        return offered_tools(told[:MAX_TOOLS], self.server, self.call)


async def _call(client: Client, tool: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
    """Not by `client.call_tool`, which checks the output against the server's schema: seconds for a long one, in which
    no turn of this process would move."""
    params = mcp_types.CallToolRequestParams(name=tool, arguments=arguments)
    result = await client.session.send_request(mcp_types.CallToolRequest(params=params), _Result)
    if isinstance(result, mcp_types.InputRequiredResult):
        raise CallRefused("The tool asks for an input that nobody can give here.")
    return result
