"""A RabbitMQ cluster whose nodes are hosts. Quorum queues have a member on each of them."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.embedded.children import Child
from tests.servers.hosts import Host
from tests.servers.rabbitmq import CLOSE_ALL, BrokerProcess, takes_connections
from tests.servers.rabbitmq_install import HINT, scripts_or_install
from tests.servers.starting import listens
from tests.speed import limit

PORT = 5672
_EPMD = 4369
_COOKIE = "of-the-test-bed"
_BOOT_WITHIN = limit(180)
_WHOLE_WITHIN = limit(30)
_LEADERS = (
    "[ra_leaderboard:lookup_leader(element(1, amqqueue:get_pid(Q))) "
    "|| Q <- rabbit_amqqueue:list(), amqqueue:is_quorum(Q)]"
)
_LEADER = re.compile(r"'?%2F_([^',}]+)'?,\s*'?(rabbit@[\w-]+)'?")
_SETTINGS = """
loopback_users = none
log.console = true
log.console.level = info
cluster_formation.peer_discovery_backend = classic_config
cluster_partition_handling = pause_minority
net_ticktime = 10
vm_memory_high_watermark.relative = 0.6
disk_free_limit.absolute = 100MB
consumer_timeout = 10800000
"""


@dataclass(eq=False)
class HostedRabbit(BrokerProcess):
    """One node. Its Erlang name is rabbit@ and the name of its host."""

    host: Host

    @property
    def cookie(self) -> str:
        return _COOKIE

    def inside(self, *command: str | Path) -> Sequence[str | Path]:
        return self.host.inside(*command)


@dataclass
class RabbitCluster:
    """The nodes of a cluster. What a `RabbitNode` can do is done to all of them."""

    nodes: Sequence[HostedRabbit]
    dsn: str
    port: int = PORT

    @property
    def running(self) -> bool:
        return all(node.running for node in self.nodes)

    async def start(self) -> None:
        """Starts the nodes that do not run. All have to come up together if none runs."""
        await asyncio.gather(*(node.start() for node in self.nodes if not node.running))

    async def stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def kill(self) -> None:
        await asyncio.gather(*(node.kill() for node in self.nodes))

    def pause(self) -> None:
        for node in self.nodes:
            node.pause()

    def resume(self) -> None:
        for node in self.nodes:
            node.resume()

    async def ctl(self, *arguments: str) -> str:
        return await self._one().ctl(*arguments)

    async def eval(self, expression: str) -> str:
        return await self._one().eval(expression)

    async def close_all_connections(self) -> None:
        for node in self.nodes:
            await node.eval(CLOSE_ALL)

    async def leaders(self, asked: HostedRabbit | None = None) -> dict[str, HostedRabbit]:
        """Returns the leader of each quorum queue, as one running node knows it. Raises OSError."""
        told = await (asked or self._one()).eval(_LEADERS)
        nodes = {node.node: node for node in self.nodes}
        return {queue: nodes[name] for queue, name in _LEADER.findall(told)}

    async def lead(self, queue: str, node: HostedRabbit) -> None:
        """Makes a node the leader of a quorum queue, by the server's own call, and waits until it is."""
        leader = (await self.leaders())[queue]
        member = f"'%2F_{queue}'"
        await leader.eval(f"ra:transfer_leadership({{{member}, '{leader.node}'}}, {{{member}, '{node.node}'}})")
        await self.until_leader(queue, node, {node})

    async def until_leader(self, queue: str, asked: HostedRabbit, wanted: set[HostedRabbit]) -> HostedRabbit:
        """Waits until `asked` says that one of these leads the queue, and returns it."""
        async with asyncio.timeout(limit(60)):
            while True:
                try:
                    leader = (await self.leaders(asked)).get(queue)
                except (OSError, AssertionError):
                    leader = None
                if leader in wanted:
                    assert leader is not None
                    return leader
                await asyncio.sleep(0.1)  # between two looks of a bounded wait

    async def whole(self) -> None:
        """Waits until every node says that all of them run."""
        async with asyncio.timeout(_BOOT_WITHIN):
            for node in self.nodes:
                while await self._known_to(node) < len(self.nodes):
                    await asyncio.sleep(0.2)  # between two looks of a bounded wait

    async def mend(self) -> list[str]:
        """Waits until the cluster is whole, and restarts the most lonely node if it does not become so.

        A cut in one direction may end before the nodes pause (net_ticktime). They then stay apart until an operator
        restarts one; RabbitMQ says "running_partitioned_network". Returns the names of the nodes that were restarted.
        """
        try:
            async with asyncio.timeout(_WHOLE_WITHIN):
                await self.whole()
            return []
        except TimeoutError:
            known = {node: await self._known_to(node) for node in self.nodes}
        lonely = min(self.nodes, key=lambda node: known[node])
        await lonely.kill()
        await lonely.start()
        await self.whole()
        return [lonely.host.known_as]

    async def _known_to(self, node: HostedRabbit) -> int:
        try:
            return int(await node.eval("length(mnesia:system_info(running_db_nodes))"))
        except (OSError, AssertionError, ValueError):
            return 0

    def _one(self) -> HostedRabbit:
        return next(node for node in self.nodes if node.running)


@asynccontextmanager
async def rabbit_cluster(folder: Path, hosts: Sequence[Host]) -> AsyncIterator[RabbitCluster]:
    """Starts a cluster with its files in `folder`. Every node knows all others when the block begins.

    Raises LookupError if no server is installed and none can be.
    """
    if (scripts := scripts_or_install()) is None:
        raise LookupError(HINT)
    peers = "".join(f"cluster_formation.classic_config.nodes.{n} = {_name(host)}\n" for n, host in enumerate(hosts, 1))
    async with AsyncExitStack() as stack:
        nodes = []
        for host in hosts:
            node = _node(folder / host.known_as, host, scripts, peers)
            epmd = _epmd(folder / host.known_as, host, node.environment)
            stack.push_async_callback(epmd.stop)
            await epmd.start()
            nodes.append(node)
        cluster = RabbitCluster(nodes, f"amqp://guest:guest@{','.join(f'{host.address}:{PORT}' for host in hosts)}/")
        stack.push_async_callback(cluster.stop)
        stack.callback(cluster.resume)
        await nodes[0].start()
        await asyncio.gather(*(node.start() for node in nodes[1:]))
        await cluster.whole()
        yield cluster


def _name(host: Host) -> str:
    return f"rabbit@{host.known_as}"


def _node(folder: Path, host: Host, scripts: Path, peers: str) -> HostedRabbit:
    folder.mkdir(parents=True)
    (folder / "rabbitmq.conf").write_text(_SETTINGS + peers)
    (folder / "enabled_plugins").write_text("[].\n")
    cookie = folder / ".erlang.cookie"
    cookie.write_text(_COOKIE)
    cookie.chmod(0o400)
    environment = {
        **{name: os.environ[name] for name in ("PATH", "LC_ALL") if name in os.environ},
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": _name(host),
        "RABBITMQ_NODE_IP_ADDRESS": host.address,
        "RABBITMQ_NODE_PORT": str(PORT),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -start_epmd false",
        "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RUNNING_UNDER_SYSTEMD": "true",  # the start script then execs the broker instead of waiting for it
    }

    async def ready() -> bool:
        return await takes_connections(f"amqp://guest:guest@{host.address}:{PORT}/")

    broker = Child(
        f"RabbitMQ on {host.known_as}", host.inside(scripts / "rabbitmq-server"), environment=environment, ready=ready,
        ready_within=_BOOT_WITHIN, log=folder / "broker.log",
    )  # fmt: skip
    return HostedRabbit(scripts, environment, broker, host)


def _epmd(folder: Path, host: Host, environment: dict[str, str]) -> Child:
    """Returns Erlang's name service of a host."""
    program = shutil.which("epmd") or "/usr/lib/erlang/bin/epmd"

    async def ready() -> bool:
        return await listens(_EPMD, host.address)

    return Child(
        f"epmd on {host.known_as}", host.inside(program), environment=environment, ready=ready,
        ready_within=_BOOT_WITHIN, log=folder / "epmd.log",
    )  # fmt: skip
