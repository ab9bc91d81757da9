"""The servers that a benchmark needs: those that the environment names, or else private ones."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from backend.embedded import embedded_servers
from backend.migrating import migrate
from tests.e2e.stack import Servers
from tests.servers.ports import free_port
from tests.servers.postgres import empty_database
from tests.servers.rabbitmq import rabbit_node
from tests.servers.redis import redis_node
from tests.servers.starting import listens


@asynccontextmanager
async def open_servers(*, rabbitmq: bool = True) -> AsyncIterator[tuple[Servers, Path]]:
    """Yields Postgres (with a new, migrated database), Redis and RabbitMQ, and a folder for logs.

    `rabbitmq=False` leaves RabbitMQ out: the queue is then in Redis.
    """
    wanted = {"postgres": not os.environ.get("DATABASE_URL"), "redis": not os.environ.get("REDIS_URL")}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp")))
        embedded = await stack.enter_async_context(embedded_servers(folder / "data", **wanted))
        server = os.environ.get("DATABASE_URL") or embedded.postgres_dsn
        postgres = await stack.enter_async_context(empty_database(server))
        await migrate(postgres)
        redis = os.environ.get("REDIS_URL") or embedded.redis_dsn
        broker = os.environ.get("RABBITMQ_URL") if rabbitmq else None
        if rabbitmq and broker is None:
            (folder / "rabbit").mkdir()
            broker = (await stack.enter_async_context(rabbit_node(folder / "rabbit"))).dsn
        yield Servers(postgres, redis, broker), folder


@asynccontextmanager
async def open_private_redis() -> AsyncIterator[str]:
    """Yields the DSN of a new server, for a benchmark that fills it. It ends with the block."""
    with tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp") as folder:
        async with redis_node(Path(folder)) as node:
            yield node.dsn


@asynccontextmanager
async def helper_process(module: str, *arguments: str) -> AsyncIterator[int]:
    """Runs `python -m module PORT arguments` inside the block. Yields the port once the process listens on it."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, str(port), *arguments)
    try:
        async with asyncio.timeout(20):
            while not await listens(port):
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.kill()
        await process.wait()
