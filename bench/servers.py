"""The servers that a benchmark runs against: those of the environment, else private ones."""

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


@asynccontextmanager
async def open_servers() -> AsyncIterator[tuple[Servers, Path]]:
    """Postgres (with a migrated database of its own), Redis and RabbitMQ, and a folder for logs."""
    wanted = {"postgres": not os.environ.get("DATABASE_URL"), "redis": not os.environ.get("REDIS_URL")}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp")))
        embedded = await stack.enter_async_context(embedded_servers(folder / "data", **wanted))
        server = os.environ.get("DATABASE_URL") or embedded.postgres_dsn
        postgres = await stack.enter_async_context(empty_database(server))
        await migrate(postgres)
        redis = os.environ.get("REDIS_URL") or embedded.redis_dsn
        rabbitmq = os.environ.get("RABBITMQ_URL")
        if rabbitmq is None:
            (folder / "rabbit").mkdir()
            rabbitmq = (await stack.enter_async_context(rabbit_node(folder / "rabbit"))).dsn
        yield Servers(postgres, redis, rabbitmq), folder


@asynccontextmanager
async def helper_process(module: str, *arguments: str) -> AsyncIterator[int]:
    """`python -m module PORT arguments` while the block lasts; its port, once it listens."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, str(port), *arguments)
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield port
    finally:
        process.kill()
        await process.wait()
