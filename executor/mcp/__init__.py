"""Tools of MCP servers: those that the file of MCP_SERVERS_FILE names, for as long as each is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from backend.config import Settings
from backend.standing import start_standing
from executor.tools.tool import ToolSource

START_GRACE = 2.0
LEAVE_LIMIT = 4.0


@asynccontextmanager
async def open_mcp(settings: Settings) -> AsyncIterator[Sequence[ToolSource]]:
    """One source a server. Opens after START_GRACE at the latest; who is not there yet comes later.

    Raises ConfigError when the file is wrong.
    """
    if settings.mcp_servers_file is None:
        yield ()
        return
    from executor.mcp.servers_file import read_servers  # few have such a file

    servers = read_servers(settings.mcp_servers_file, os.environ)
    if not servers:
        yield ()
        return
    from executor.mcp.connection import Connection  # the SDK takes half a second and many megabytes

    connections = [
        Connection(server, settings.operation_timeout if server.operations else settings.tool_timeout)
        for server in servers
    ]
    jobs = [start_standing(one.keep, f"MCP server {one.server.name}") for one in connections]
    try:
        await _until_tried([one.tried for one in connections])
        yield connections
    finally:
        await _end(jobs)


async def _until_tried(tried: Sequence[asyncio.Event]) -> None:
    waiting = [asyncio.create_task(one.wait()) for one in tried]
    try:
        await asyncio.wait(waiting, timeout=START_GRACE)
    finally:
        for one in waiting:
            one.cancel()


async def _end(jobs: Sequence[asyncio.Task[None]]) -> None:
    """Cancels twice who does not end in time: leaving a server is talking with it."""
    for limit in (LEAVE_LIMIT - 1, 1.0):
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs, timeout=limit)
