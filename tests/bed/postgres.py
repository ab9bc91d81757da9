"""A PostgreSQL primary and its synchronous standby, each on a host, and what an operator or Patroni does to them.

The URL names both hosts with `target_session_attrs=read-write` (docs/postgres.md). A primary that has been replaced
comes back as a standby with a new copy of the data.
"""

from __future__ import annotations

import asyncio
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from backend.embedded.children import Child, tied_to_parent
from backend.embedded.postgres import postgres_binaries
from tests.servers.hosts import NETWORKS, Host
from tests.servers.postgres import PostgresNode
from tests.speed import limit

PORT = 5432
DATABASE = "copilot"
_SETTINGS = {
    "unix_socket_directories": "", "max_connections": "300", "wal_keep_size": "512MB", "wal_sender_timeout": "5s",
    "wal_receiver_timeout": "5s", "wal_retrieve_retry_interval": "500ms", "timezone": "UTC",
}  # fmt: skip
_MOMENT = limit(20)
_START = limit(120)


@dataclass(eq=False)
class Server:
    """One server, which is a standby while its data say so."""

    host: Host
    data: Path
    child: Child

    async def execute(self, *statements: str) -> None:
        connection = await self.connect()
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close(timeout=_MOMENT)

    async def ask(self, question: str) -> object:
        connection = await self.connect()
        try:
            return await connection.fetchval(question)
        finally:
            await connection.close(timeout=_MOMENT)

    async def connect(self, database: str = "postgres") -> asyncpg.Connection:
        return await asyncpg.connect(
            host=self.host.address, port=PORT, user="postgres", database=database, timeout=_MOMENT,
            command_timeout=_MOMENT,
        )  # fmt: skip

    async def takes_connections(self) -> bool:
        try:
            return await self.ask("SELECT true") is True
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False


class PostgresPair(PostgresNode):
    """Both servers. `server` is the process of the primary."""

    def __init__(self, servers: Sequence[Server]) -> None:
        places = ",".join(f"{server.host.address}:{PORT}" for server in servers)
        super().__init__(f"postgresql://postgres@{places}/{DATABASE}?target_session_attrs=read-write", servers[0].child)
        self.servers = servers
        self.primary, self.standby = servers

    async def fail_over(self, *, kill: bool) -> float:
        """Makes the standby the primary. Returns the monotonic time at which it took writes.

        The old primary is killed first, or stopped, which hands the standby all it has. Call `rejoin` afterwards.
        """
        if kill:
            self.primary.child.send(signal.SIGQUIT)
            await self.primary.child.wait()
        else:
            await self.primary.child.stop(patience=limit(30))
        await self.standby.execute("SELECT pg_promote(true, 60)")
        self.primary, self.standby = self.standby, self.primary
        self.server = self.primary.child
        return time.monotonic()

    async def rejoin(self) -> None:
        """Starts the standby with a new copy of the primary's data. From then on each commit waits for it."""
        await self.standby.child.stop(patience=limit(10))
        await _copy(self.primary, self.standby)
        await self.standby.child.start()
        await self.commit_on_both()

    async def commit_on_both(self) -> None:
        """Makes each commit wait until the standby has it. Returns when the standby is in step."""
        async with asyncio.timeout(_START):
            while not await self.primary.ask("SELECT true FROM pg_stat_replication WHERE state = 'streaming'"):
                await asyncio.sleep(0.05)  # between two looks of a bounded wait
        await self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")

    async def start(self) -> None:
        """Starts a server that does not run."""
        for server in self.servers:
            if not server.child.running:
                await server.child.start()


@asynccontextmanager
async def postgres_pair(folder: Path, hosts: Sequence[Host]) -> AsyncIterator[PostgresPair]:
    """Starts both servers with their files in `folder` and an empty database."""
    user = _user()
    async with AsyncExitStack() as stack:
        servers = []
        for host in hosts[:2]:
            data = folder / host.known_as / "data"
            data.parent.mkdir(parents=True)
            servers.append(_server(host, data, user))
            stack.push_async_callback(servers[-1].child.stop)
        primary, standby = servers
        await _run(primary, user, "initdb", "-D", primary.data, "-U", "postgres", "--auth=trust", "--no-sync")
        with (primary.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NETWORKS} trust\nhost replication all {NETWORKS} trust\n")
        await primary.child.start()
        await primary.execute(f'CREATE DATABASE "{DATABASE}"')
        await _copy(primary, standby)
        await standby.child.start()
        pair = PostgresPair(servers)
        await pair.commit_on_both()
        try:
            yield pair
        finally:
            pair.thaw()


def _server(host: Host, data: Path, user: pwd.struct_passwd) -> Server:
    program: list[str | Path] = [postgres_binaries() / "postgres", "-D", data]
    for name, value in {"listen_addresses": host.address, "port": str(PORT), **_SETTINGS}.items():
        program += ["-c", f"{name}={value}"]

    async def ready() -> bool:
        return await server.takes_connections()

    child = Child(
        f"PostgreSQL on {host.known_as}", _as(host, user, program), stop_signal=signal.SIGINT,
        death_signal=signal.SIGQUIT, ready=ready, ready_within=_START, log=data.parent / "postgres.log",
    )  # fmt: skip
    server = Server(host, data, child)
    return server


def _user() -> pwd.struct_passwd:
    """Returns a user that is not root, as PostgreSQL demands."""
    return next(user for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody"))


def _as(host: Host, user: pwd.struct_passwd, program: Sequence[str | Path]) -> list[str | Path]:
    """Returns the command line that runs a program on a host as that user, and ends it with this process."""
    identity = f"user:{user.pw_uid}:{user.pw_gid}"
    return host.inside(*tied_to_parent(program, death_signal=signal.SIGQUIT, identity=identity))


async def _copy(source: Server, target: Server) -> None:
    await asyncio.to_thread(shutil.rmtree, target.data, ignore_errors=True)
    await _run(
        target, _user(), "pg_basebackup", "-h", source.host.address, "-p", str(PORT), "-U", "postgres", "-D",
        target.data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
    )  # fmt: skip
    kept = target.data / "postgresql.auto.conf"
    lines = [line for line in kept.read_text().splitlines() if not line.startswith("synchronous_standby_names")]
    kept.write_text("\n".join(lines) + "\n")


async def _run(server: Server, user: pwd.struct_passwd, program: str, *arguments: str | Path) -> None:
    """Runs one of PostgreSQL's programs on a server's host. Raises OSError with its words if it fails."""
    shutil.chown(server.data.parent, user.pw_uid, user.pw_gid)
    command = _as(server.host, user, [postgres_binaries() / program, *arguments])
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    async with asyncio.timeout(_START):
        _, words = await process.communicate()
    if process.returncode:
        raise OSError(f"{program}: {words.decode(errors='replace').strip()[-500:]}")
