"""Tools of the MCP servers in MCP_SERVERS_FILE. The tools of a server are offered while it is connected."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from backend.config import Settings
from backend.supervised import start_supervised

if TYPE_CHECKING:
    from executor.mcp.connection import Connection

START_GRACE = 2.0
"""Seconds that a starting process waits for its servers."""
LEAVE_LIMIT = 4.0
"""Seconds that disconnecting from all servers may take."""


@asynccontextmanager
async def open_mcp(settings: Settings, own_names: Collection[str] = ()) -> AsyncIterator[Sequence[Connection]]:
    """Yields a source of tools for each server, after START_GRACE at the latest. Slower servers connect later.

    No tool gets one of `own_names`.
    Raises ConfigError if the file is wrong.
    """
    if settings.mcp_servers_file is None:
        yield ()
        return
    from executor.mcp.servers_file import read_servers  # most installations have no such file

    servers = [
        one if one.elicitation_wait is not None else one.model_copy(update={"elicitation_wait": default})
        for default in (settings.elicitation_wait,)
        for one in read_servers(settings.mcp_servers_file, os.environ)
    ]
    if not servers:
        yield ()
        return
    from executor.mcp.connection import Connection  # importing the SDK takes half a second and many megabytes
    from executor.mcp.names import Names

    names = Names([server.name for server in servers], own_names)
    connections = [
        Connection(
            server,
            settings.operation_timeout if server.operations else settings.tool_timeout,
            settings.mcp_start_timeout,
            names,
        )
        for server in servers
    ]
    jobs = [start_supervised(one.run, f"MCP server {one.server.name}") for one in connections]
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
    """Cancels the jobs, and again those that do not end in time, since disconnecting may wait for a server."""
    for limit in (LEAVE_LIMIT - 1, 1.0):
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs, timeout=limit)
