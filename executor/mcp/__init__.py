"""Tools of the MCP servers in MCP_SERVERS_FILE. The tools of a server are offered while it is connected."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from backend.chat.oauth.sealing import Seal
from backend.config import Settings
from backend.errors import ConfigError, ValidationFailed
from backend.postgres import Database
from backend.supervised import start_supervised

if TYPE_CHECKING:
    from executor.mcp.connection import Connection
    from executor.mcp.names import Names
    from executor.mcp.server_entry import Server

START_GRACE = 2.0
"""Seconds that a starting process waits for its servers."""
LEAVE_LIMIT = 4.0
"""Seconds that disconnecting from all servers may take."""


@asynccontextmanager
async def open_mcp(
    settings: Settings, own_names: Collection[str] = (), database: Database | None = None
) -> AsyncIterator[Sequence[Connection]]:
    """Yields a source of tools for each server, after START_GRACE at the latest. Slower servers connect later.

    No tool gets one of `own_names`. Without a `database`, nobody can sign in at servers.
    Raises ConfigError if the file is wrong, or if servers need settings that are missing.
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
    from executor.mcp.names import Names

    names = Names([server.name for server in servers], own_names)
    connections = [_connection(server, settings, names, database) for server in servers]
    jobs = [start_supervised(one.run, f"MCP server {one.server.name}") for one in connections]
    try:
        await _until_tried([one.tried for one in connections])
        yield connections
    finally:
        await _end(jobs)


def _connection(server: Server, settings: Settings, names: Names, database: Database | None) -> Connection:
    """Raises ConfigError if users sign in at the server, but a setting for that is missing."""
    from executor.mcp.connection import Connection  # importing the SDK takes half a second and many megabytes
    from executor.mcp.server_entry import SUBJECT, HttpServer

    call_limit = settings.operation_timeout if server.operations else settings.tool_timeout
    if not isinstance(server, HttpServer) or not (server.auth or server.claim_headers):
        return Connection(server, call_limit, settings.mcp_start_timeout, names)
    if server.auth is None:
        from executor.mcp.claimed import ClaimedConnection

        if missing := server.claims - {SUBJECT, *settings.claims}:
            raise ConfigError(f"MCP_CLAIMS must name {min(missing)}, which the MCP server {server.name!r} is sent")
        return ClaimedConnection(server, call_limit, settings.mcp_start_timeout, names)
    from executor.mcp.oauth.signed_in import SignedInConnection

    seal = Seal.of(settings.mcp_token_keys)
    if seal is None:
        raise ConfigError(f"MCP_TOKEN_KEYS is not set, and users sign in at the MCP server {server.name!r}")
    if not _is_shown(settings.platform_base_url):
        raise ConfigError("PLATFORM_BASE_URL must begin with https:// (or be on this machine): users sign in there")
    assert database is not None, "an executor has one"
    return SignedInConnection(server, settings, call_limit, names, database, seal)


def _is_shown(base: str) -> bool:
    """Returns True if pages show links to this URL (`checked_url`)."""
    from executor.mcp.elicitations import checked_url

    try:
        return bool(checked_url(base))
    except ValidationFailed:
        return False


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
