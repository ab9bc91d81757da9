"""A private Redis Cluster: three masters with a replica each, which tests can kill, fail over and reshard."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from tests.servers.hosts import Host
from tests.servers.ports import free_port
from tests.servers.redis import RedisNode, redis_node
from tests.speed import limit

NODE_TIMEOUT = 1.0
"""Seconds of silence until the nodes count one as down."""


@dataclass
class RedisCluster:
    """The nodes of a cluster, masters first when it starts. `dsn` is a REDIS_URL that names all of them."""

    nodes: list[RedisNode]

    @property
    def dsn(self) -> str:
        return f"redis+cluster://{','.join(f'{node.address}:{node.port}' for node in self.nodes)}/0"

    # --- what a RedisNode can do, done to all nodes -------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return all(node.running for node in self.nodes)

    async def start(self) -> None:
        await asyncio.gather(*(node.start() for node in self.nodes))
        await self.until_whole()

    async def stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def kill(self) -> None:
        await asyncio.gather(*(node.kill() for node in self.nodes))

    async def lose_all(self, *, down: float = 0.0) -> None:
        """Kills all nodes and starts them without their data after `down` seconds. They still know each other."""
        await asyncio.gather(*(node.lose_all(down=down) for node in self.nodes))
        await self.until_whole()

    def pause(self) -> None:
        for node in self.nodes:
            node.pause()

    def resume(self) -> None:
        for node in self.nodes:
            node.resume()

    # --- what only a cluster can do -----------------------------------------------------------------------------------

    async def owner_of(self, key: str) -> RedisNode:
        """Returns the master that has the slot of a key, as the running nodes tell."""
        slot = key_slot(key.encode())
        for _, first, last, port, _ in await self._ranges():
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(slot)

    async def replica_of(self, master: RedisNode) -> RedisNode:
        """Returns a replica of a master."""
        ports = next(replicas for _, _, _, port, replicas in await self._ranges() if port == master.port)
        return next(node for node in self.nodes if node.port == ports[0])

    async def fail_over(self, key: str) -> None:
        """Makes the replica the master of a key's slot, by the server's own command."""
        replica = await self.replica_of(await self.owner_of(key))
        await _call(replica, "CLUSTER", "FAILOVER")
        await self._until_owner(key, replica)

    async def promote_after(self, key: str, strike: Callable[[RedisNode], Awaitable[None]]) -> None:
        """Runs `strike` on the master of a key's slot, and waits until the others have made its replica the master."""
        master = await self.owner_of(key)
        replica = await self.replica_of(master)
        await strike(master)
        await self._until_owner(key, replica)

    async def move_slot(self, key: str, *, pause: float = 0.0) -> None:
        """Moves the slot of a key to another master, with `pause` seconds before and after its keys move."""
        async with self.slot_on_its_way(key, pause=pause):
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def slot_on_its_way(self, key: str, *, pause: float = 0.0) -> AsyncIterator[None]:
        """Moves the keys of a slot to another master. The slot itself moves when the block ends.

        Meanwhile the old master sends those who ask for these keys to the new one, which takes only such commands.
        """
        slot, source = key_slot(key.encode()), await self.owner_of(key)
        masters = {port for _, _, _, port, _ in await self._ranges()}
        target = next(node for node in self.nodes if node.port in masters - {source.port})
        mine, its = [await _call(node, "CLUSTER", "MYID") for node in (source, target)]
        await _call(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", mine)
        await _call(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", its)
        await asyncio.sleep(pause)
        await self._move_keys(slot, source, target)
        yield
        await self._move_keys(slot, source, target)
        for node in (target, source):
            await _call(node, "CLUSTER", "SETSLOT", slot, "NODE", its)
        await self._until_owner(key, target)

    async def _move_keys(self, slot: int, source: RedisNode, target: RedisNode) -> None:
        while keys := await _call(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            await _call(source, "MIGRATE", target.address, target.port, "", 0, 5000, "KEYS", *keys)

    async def heal(self) -> None:
        """Starts what is dead and thaws what is frozen. Returns when every master has its replica in step again."""
        for node in self.nodes:
            node.resume()
            if not node.running:
                await node.start()
        await self.until_whole()
        for node in self.nodes:
            await _until(lambda node=node: _is_settled(node))

    async def until_whole(self) -> None:
        """Waits until every node says that all slots are served."""
        for node in self.nodes:
            await _until(lambda node=node: _is_ok(node))

    async def _until_owner(self, key: str, node: RedisNode) -> None:
        async def owns() -> bool:
            return (await self.owner_of(key)).port == node.port

        await _until(owns)

    async def _ranges(self) -> list[tuple[RedisNode, int, int, int, list[int]]]:
        """Returns the ranges of slots as each running node tells those of its own master: first, last, the master's
        port, its replicas' ports."""
        found = []
        for node in self.nodes:
            try:
                async with asyncio.timeout(limit(1)):
                    rows = await _call(node, "CLUSTER", "SLOTS")
            except OSError:  # TimeoutError is one
                continue
            for first, last, master, *replicas in rows:
                if int(master[1]) == node.port:
                    found.append((node, int(first), int(last), int(master[1]), [int(one[1]) for one in replicas]))
        return found


async def _call(node: RedisNode, *command: Any) -> Any:
    """Returns the reply as the server gives it. Raises OSError if it refuses the command or does not answer."""
    async with Redis(host=node.address, port=node.port, socket_timeout=limit(5), retry=Retry(NoBackoff(), 0)) as client:
        client.response_callbacks.clear()
        ask: Any = client.execute_command
        try:
            return await ask(*command)
        except RedisError as error:
            raise OSError(str(error)) from error


async def _is_ok(node: RedisNode) -> bool:
    return b"cluster_state:ok" in await _call(node, "CLUSTER", "INFO")


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(limit(60)):
        while True:
            try:
                if await holds():
                    return
            except (OSError, LookupError):
                pass
            await asyncio.sleep(0.05)  # between two looks of a bounded wait


@asynccontextmanager
async def redis_cluster(
    folder: Path, *, masters: int = 3, replicas: bool = True, hosts: Sequence[Host] = ()
) -> AsyncIterator[RedisCluster]:
    """Starts a cluster with its files in `folder`. Every slot is served, and every replica in step, when it begins.

    With `hosts`, each node is on one of its own. Otherwise the nodes hide their hosts, so that a `ClusterProxy` can
    stand before them.
    """
    endpoint = "ip" if hosts else "unknown-endpoint"
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(masters * (2 if replicas else 1)):
            (folder / f"node-{number}").mkdir()
            node = redis_node(
                folder / f"node-{number}", hosts[number] if hosts else None, cluster_enabled="yes",
                cluster_port=str(free_port()),
                cluster_node_timeout=str(round(1000 * NODE_TIMEOUT)), repl_diskless_sync_delay="0",
                cluster_preferred_endpoint_type=endpoint,
            )  # fmt: skip
            nodes.append(await stack.enter_async_context(node))
        await _join(nodes, masters)
        cluster = RedisCluster(nodes)
        await cluster.until_whole()
        yield cluster


@asynccontextmanager
async def redis_to_test(folder: Path) -> AsyncIterator[Any]:
    """Starts a `RedisNode`, or with REDIS=cluster in the environment a `RedisCluster` of six."""
    start = redis_cluster if os.environ.get("REDIS") == "cluster" else redis_node
    async with start(folder) as started:
        yield started


async def _join(nodes: Sequence[RedisNode], masters: int) -> None:
    for number, node in enumerate(nodes):
        await _call(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        if number < masters:
            first, last = (REDIS_CLUSTER_HASH_SLOTS * at // masters for at in (number, number + 1))
            await _call(node, "CLUSTER", "ADDSLOTSRANGE", first, last - 1)
    for node in nodes[1:]:
        await _call(nodes[0], "CLUSTER", "MEET", node.address, node.port, _bus_port(node))
    for node in nodes:
        await _until(lambda node=node: _knows(node, len(nodes)))
    for number, node in enumerate(nodes[masters:]):
        await _call(node, "CLUSTER", "REPLICATE", await _call(nodes[number % masters], "CLUSTER", "MYID"))
    for node in nodes[masters:]:
        await _until(lambda node=node: _in_step(node))


def _bus_port(node: RedisNode) -> str:
    arguments = [str(argument) for argument in node.server.command]
    return arguments[arguments.index("--cluster-port") + 1]


async def _knows(node: RedisNode, number: int) -> bool:
    told: bytes = await _call(node, "CLUSTER", "NODES")
    return len(told.splitlines()) == number and b"handshake" not in told


async def _is_settled(node: RedisNode) -> bool:
    facts: bytes = await _call(node, "INFO", "replication")
    return b"master_link_status:up" in facts or b"connected_slaves:1" in facts


async def _in_step(node: RedisNode) -> bool:
    return b"master_link_status:up" in await _call(node, "INFO", "replication")
