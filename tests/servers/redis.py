"""A private Valkey on its own port that tests can kill or freeze."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis, RedisCluster

from backend.embedded.children import Child
from backend.embedded.valkey import valkey_binary
from tests.servers.hosts import Host
from tests.servers.ports import free_port
from tests.speed import limit


@dataclass
class RedisNode:
    """A server that tests can kill, start again and freeze. It keeps its data."""

    dsn: str
    port: int
    folder: Path
    server: Child
    address: str = "127.0.0.1"

    @property
    def running(self) -> bool:
        return self.server.running

    @property
    def nodes(self) -> Sequence[RedisNode]:
        """The servers, as a cluster has several."""
        return (self,)

    async def start(self) -> None:
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop()

    async def kill(self) -> None:
        self.server.send(signal.SIGKILL)
        await self.server.wait()

    async def lose_all(self, *, down: float = 0.0) -> None:
        """Kills the server and starts it without its data after `down` seconds."""
        await self.kill()
        await asyncio.sleep(down)
        for kept in self.folder.glob("appendonlydir*"):
            await asyncio.to_thread(shutil.rmtree, kept)
        await self.start()

    def pause(self) -> None:
        self.server.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.server.send(signal.SIGCONT)


@asynccontextmanager
async def redis_node(folder: Path, host: Host | None = None, **more: str) -> AsyncIterator[RedisNode]:
    """Starts a private server with its files in `folder`, which allows DEBUG, on `host` if there is one. `more` are
    settings, with `_` for `-`."""
    port, address = free_port(), host.address if host else "127.0.0.1"
    settings = {
        "bind": address,
        "protected-mode": "no",
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "enable-debug-command": "local",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    command: list[str | Path] = [valkey_binary()]
    for name, value in settings.items():
        command += [f"--{name}", value]

    async def ready() -> bool:
        return await answers(port, address)

    if host is not None:
        command = host.inside(*command)
    server = Child("Valkey", command, ready=ready, ready_within=limit(20), log=folder / "valkey.log")
    try:
        await server.start()
        yield RedisNode(f"redis://{address}:{port}/0", port, folder, server, address)
    finally:
        server.send(signal.SIGCONT)
        await server.stop()


@asynccontextmanager
async def redis_pair(folder: Path) -> AsyncIterator[tuple[RedisNode, RedisNode]]:
    """Starts a master and its replica, which is in step when the block begins."""
    for name in ("master", "replica"):
        (folder / name).mkdir()
    async with (
        redis_node(folder / "master", repl_diskless_sync_delay="0") as master,
        redis_node(folder / "replica", replicaof=f"127.0.0.1 {master.port}") as replica,
    ):
        async with Redis.from_url(master.dsn) as client, asyncio.timeout(limit(30)):
            while not await client.wait(1, 100):
                await asyncio.sleep(0.05)  # between two looks of a bounded wait
        yield master, replica


async def fail_over(master: RedisNode) -> None:
    """Makes the replica the master, by the server's own command. Returns when they have changed places."""
    async with Redis.from_url(master.dsn) as client, asyncio.timeout(limit(30)):
        await client.execute_command("FAILOVER")
        while (await client.info("replication"))["role"] != "slave":
            await asyncio.sleep(0.02)  # between two looks of a bounded wait


def redis_client(dsn: str) -> Redis:
    """Opens redis-py's own client of a server, or of a cluster."""
    if "+cluster://" not in dsn:
        return Redis.from_url(dsn)
    client: Any = RedisCluster.from_url(dsn.replace("+cluster", "").partition(",")[0])
    return cast("Redis", client)


async def answers(port: int, address: str = "127.0.0.1") -> bool:
    try:
        async with asyncio.timeout(limit(20)):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
