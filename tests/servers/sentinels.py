"""Three private Sentinels that watch a master and its replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from backend.embedded.children import Child
from backend.embedded.valkey import valkey_binary
from tests.servers.ports import free_port
from tests.servers.redis import RedisNode, answers
from tests.speed import limit

MASTER = "the-master"
DOWN_AFTER = 1.0
"""Seconds of silence until a Sentinel counts a server as down."""


class Sentinels:
    """Three Sentinels. `dsn` is a REDIS_URL that names all of them."""

    def __init__(self, members: dict[int, Child]) -> None:
        self._members = members
        self.dsn = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in members)}/{MASTER}/0"

    async def stop_first(self) -> None:
        """Stops the first Sentinel of the URL. The other two can still elect."""
        await self._members.pop(next(iter(self._members))).stop()

    async def fail_over(self) -> None:
        """Makes the replica the master by a Sentinel's command, while the old master lives."""
        async with Redis(port=next(iter(self._members)), protocol=2) as sentinel:
            await sentinel.execute_command("SENTINEL", "FAILOVER", MASTER)

    async def until_master(self, node: RedisNode) -> None:
        """Waits until every Sentinel names `node` as the master."""
        await self._until(lambda sentinel: _names(sentinel, node))

    async def until_agreed(self) -> None:
        """Waits until every Sentinel knows both others and the replica, so that they can elect."""
        await self._until(_knows_all)

    async def _until(self, holds: Callable[[Redis], Awaitable[bool]]) -> None:
        async with asyncio.timeout(limit(60)):
            for port in self._members:
                async with Redis(port=port, protocol=2) as sentinel:
                    while not await holds(sentinel):
                        await asyncio.sleep(0.1)  # between two looks of a bounded wait


async def _names(sentinel: Redis, node: RedisNode) -> bool:
    found = await sentinel.sentinel_get_master_addr_by_name(MASTER)
    return found is not None and int(found[1]) == node.port


async def _knows_all(sentinel: Redis) -> bool:
    master = await sentinel.sentinel_master(MASTER)
    return master["num-other-sentinels"] == 2 and master["num-slaves"] == 1


@asynccontextmanager
async def three_sentinels(folder: Path, master: RedisNode) -> AsyncIterator[Sentinels]:
    """Starts three Sentinels, which agree on `master` and its replica when the block begins."""
    async with AsyncExitStack() as stack:
        members = {}
        for number in range(3):
            port = free_port()
            members[port] = await _one_sentinel(stack, folder / f"sentinel-{number}", port, master)
        sentinels = Sentinels(members)
        await sentinels.until_agreed()
        yield sentinels


async def _one_sentinel(stack: AsyncExitStack, folder: Path, port: int, master: RedisNode) -> Child:
    folder.mkdir()
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {folder}\n"
        f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 2\n"
        f"sentinel down-after-milliseconds {MASTER} {int(1000 * DOWN_AFTER)}\n"
        f"sentinel failover-timeout {MASTER} 5000\n"
    )

    async def ready() -> bool:
        return await answers(port)

    command: list[str | Path] = [valkey_binary(), settings, "--sentinel"]
    child = Child("Sentinel", command, ready=ready, ready_within=limit(20), log=folder / "log")
    stack.push_async_callback(child.stop)
    await child.start()
    return child
