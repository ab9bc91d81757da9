"""Databases for tests on a running server, and a private PostgreSQL that tests can kill or freeze."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from backend.embedded import Child, embedded_servers
from backend.migrating import migrate
from tests.speed import limit


def _on_database(dsn: str, name: str) -> str:
    parts = urlsplit(dsn)
    query = "&".join(part for part in parts.query.split("&") if part and not part.startswith("schema="))
    return f"{parts.scheme}://{parts.netloc}/{name}" + (f"?{query}" if query else "")


@asynccontextmanager
async def empty_database(server_dsn: str) -> AsyncIterator[str]:
    """Creates an empty database on that server and yields its DSN. Drops it afterwards, even if clients are
    connected."""
    async with _new_database(server_dsn, urlsplit(server_dsn).path.lstrip("/") or "postgres") as dsn:
        yield dsn


@asynccontextmanager
async def copied_database(dsn: str) -> AsyncIterator[str]:
    """Copies a database to which nobody is connected, and yields the copy's DSN. Drops the copy afterwards."""
    async with _new_database(dsn, "postgres", f'TEMPLATE "{urlsplit(dsn).path.lstrip("/")}"') as copy:
        yield copy


@asynccontextmanager
async def _new_database(server_dsn: str, admin: str, options: str = "") -> AsyncIterator[str]:
    name = f"copilot_test_{uuid.uuid4().hex[:12]}"
    admin = _on_database(server_dsn, admin)
    await _execute(admin, f'CREATE DATABASE "{name}" {options}')
    try:
        yield _on_database(server_dsn, name)
    finally:
        await _execute(admin, f'DROP DATABASE "{name}" WITH (FORCE)')


@asynccontextmanager
async def migrated_database(server_dsn: str) -> AsyncIterator[str]:
    """Does the same as `empty_database`, with the project's tables."""
    async with empty_database(server_dsn) as dsn:
        await migrate(dsn)
        yield dsn


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=limit(20), command_timeout=limit(60))
    try:
        await connection.execute(statement)
    finally:
        await connection.close(timeout=limit(20))


@dataclass
class PostgresNode:
    """A server that tests can kill, start again and freeze. It keeps what was committed."""

    dsn: str
    server: Child

    async def start(self) -> None:
        await self.server.start()

    async def kill(self) -> None:
        """Ends the server at once, without a checkpoint. The next start recovers."""
        self.server.send(signal.SIGQUIT)
        await self.server.wait()

    def pause(self) -> None:
        """Freezes the postmaster. Open connections continue, new ones wait."""
        self.server.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.server.send(signal.SIGCONT)

    def freeze(self) -> None:
        """Freezes every process of the server, including those of open connections."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        self.server.send(number)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                if parent == self.server.pid:
                    os.kill(int(stat.parent.name), number)


@asynccontextmanager
async def postgres_node(folder: Path) -> AsyncIterator[PostgresNode]:
    """Starts a private server with its files in `folder`. If they are new, its database is empty."""
    async with embedded_servers(folder, redis=False) as servers:
        (server,) = servers.children
        node = PostgresNode(servers.postgres_dsn, server)
        try:
            yield node
        finally:
            node.thaw()


@asynccontextmanager
async def standby_node(stopped: Path, folder: Path) -> AsyncIterator[PostgresNode]:
    """Starts a hot standby with a copy of a stopped server's data. It answers queries and takes no writes."""
    await asyncio.to_thread(shutil.copytree, stopped, folder)
    (folder / "postgres" / "standby.signal").touch()
    async with postgres_node(folder) as node:
        yield node
