"""A private Valkey on a port of its own that can be hurt."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.embedded.children import Child
from backend.embedded.valkey import valkey_binary
from tests.servers.ports import free_port
from tests.speed import limit


@dataclass
class RedisNode:
    """A server that can be hurt: kill() and start() again keep its data, pause() and resume() freeze it."""

    dsn: str
    port: int
    folder: Path
    server: Child

    async def start(self) -> None:
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop()

    async def kill(self) -> None:
        self.server.send(signal.SIGKILL)
        await self.server.wait()

    async def lose_all(self, *, away: float = 0.0) -> None:
        """Kills it and starts it without its data, after so many seconds."""
        await self.kill()
        await asyncio.sleep(away)
        for kept in self.folder.glob("appendonlydir*"):
            await asyncio.to_thread(shutil.rmtree, kept)
        await self.start()

    def pause(self) -> None:
        self.server.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.server.send(signal.SIGCONT)


@asynccontextmanager
async def redis_node(folder: Path) -> AsyncIterator[RedisNode]:
    """A private server with its files in `folder`; DEBUG is allowed."""
    port = free_port()
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "enable-debug-command": "local",
    }
    command: list[str | Path] = [valkey_binary()]
    for name, value in settings.items():
        command += [f"--{name}", value]

    async def ready() -> bool:
        return await _answers(port)

    server = Child("Valkey", command, ready=ready, ready_within=limit(20), log=folder / "valkey.log")
    try:
        await server.start()
        yield RedisNode(f"redis://127.0.0.1:{port}/0", port, folder, server)
    finally:
        server.send(signal.SIGCONT)
        await server.stop()


async def _answers(port: int) -> bool:
    try:
        async with asyncio.timeout(limit(20)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
