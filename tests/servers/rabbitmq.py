"""Starts a private RabbitMQ node with its own ports, files and epmd. It ends with the test run.

It runs an installed rabbitmq-server, or docker if none can be installed. Tests can kill and freeze both the same way.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aio_pika
import pytest
from yarl import URL

from backend.embedded.children import Child
from tests.servers.ports import free_port
from tests.servers.rabbitmq_install import HINT, IMAGE, has_docker_engine, scripts_or_install
from tests.servers.starting import listens
from tests.speed import limit

_BOOT_WITHIN = limit(90)
_CTL_WITHIN = limit(60)
CLOSE_ALL = 'rabbit_networking:close_connections(rabbit_networking:connections(), <<"test">>)'
_ALWAYS = "loopback_users = none\nlog.console = true\nlog.console.level = info\n"


class RabbitNode(Protocol):
    """A node that tests can kill, start again and freeze. It keeps its data."""

    dsn: str
    port: int

    @property
    def running(self) -> bool: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    async def ctl(self, *arguments: str) -> str:
        """Returns the output of `rabbitmqctl ARGUMENTS`. Takes about a second. Fails the test if the command fails."""
        ...

    async def eval(self, expression: str) -> str:
        """Returns the value of an Erlang expression, as text. Takes a fortieth of the CPU time of `ctl`."""
        ...

    async def close_all_connections(self) -> None: ...


def rabbit_node(folder: Path, settings: str = "") -> AbstractAsyncContextManager[RabbitNode]:
    """Starts a node with its files in `folder`, ready for connections. `settings` is added to its rabbitmq.conf.

    Fails the test with the command that installs RabbitMQ if there is neither a server nor docker.
    """
    (folder / "rabbitmq.conf").write_text(_ALWAYS + settings)
    (folder / "enabled_plugins").write_text("[].\n")
    if (scripts := scripts_or_install()) is not None:
        return _installed_node(folder, scripts)
    if has_docker_engine():
        return _docker_node(folder)
    pytest.fail(HINT, pytrace=False)


def _dsn(port: int) -> str:
    return f"amqp://guest:guest@127.0.0.1:{port}/"


async def takes_connections(dsn: str) -> bool:
    url = URL(dsn)
    if not await listens(url.port or 5672, url.host or "127.0.0.1"):
        return False
    try:
        connection = await aio_pika.connect(dsn, timeout=limit(20))
    except (OSError, TimeoutError, aio_pika.exceptions.AMQPError):
        return False
    await connection.close()
    return True


async def output_of(*command: str | Path, environment: dict[str, str] | None = None, input: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(_CTL_WITHIN):
        output, _ = await process.communicate(input.encode())
    assert process.returncode == 0, output.decode()
    return output.decode()


@dataclass(eq=False)
class BrokerProcess:
    """A broker of an installed RabbitMQ: what all nodes have in common."""

    scripts: Path
    environment: dict[str, str]
    broker: Child

    @property
    def node(self) -> str:
        """Its Erlang name."""
        return self.environment["RABBITMQ_NODENAME"]

    @property
    def cookie(self) -> str:
        return (Path(self.environment["HOME"]) / ".erlang.cookie").read_text()

    @property
    def running(self) -> bool:
        return self.broker.running

    def inside(self, *command: str | Path) -> Sequence[str | Path]:
        """Returns a command line that runs where the broker does."""
        return command

    async def start(self) -> None:
        await self.broker.start()

    async def stop(self) -> None:
        await self.broker.stop()

    async def kill(self) -> None:
        self.broker.send(signal.SIGKILL)
        await self.broker.wait()

    def pause(self) -> None:
        self.broker.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.broker.send(signal.SIGCONT)

    async def ctl(self, *arguments: str) -> str:
        command: tuple[str | Path, ...] = (self.scripts / "rabbitmqctl", "-n", self.node, "--quiet", *arguments)
        return await output_of(*self.inside(*command), environment=self.environment)

    async def eval(self, expression: str) -> str:
        """Raises OSError if the node does not answer with a value."""
        if (program := shutil.which("erl_call")) is None:
            return await self.ctl("eval", f"{expression}.")
        called = self.inside(program, "-sname", self.node, "-c", self.cookie, "-e")
        answer = await output_of(*called, environment=self.environment, input=f"{expression}.\n")
        if not answer.startswith("{ok, "):
            raise OSError(answer)
        return answer.removeprefix("{ok, ").removesuffix("}")


@dataclass(eq=False)
class _InstalledNode(BrokerProcess):
    dsn: str
    port: int

    async def close_all_connections(self) -> None:
        await self.eval(CLOSE_ALL)


@asynccontextmanager
async def _installed_node(folder: Path, scripts: Path) -> AsyncIterator[RabbitNode]:
    port = free_port()
    environment = _environment(folder, port, free_port())

    async def ready() -> bool:
        return await takes_connections(_dsn(port))

    broker = Child(
        "RabbitMQ",
        [scripts / "rabbitmq-server"],
        environment=environment,
        ready=ready,
        ready_within=_BOOT_WITHIN,
        log=folder / "broker.log",
    )
    epmd = _epmd(environment, folder)
    try:
        await epmd.start()
        await broker.start()
        yield _InstalledNode(scripts, environment, broker, _dsn(port), port)
    finally:
        broker.send(signal.SIGCONT)
        await broker.stop(patience=10)
        await epmd.stop()


def _environment(folder: Path, port: int, epmd_port: int) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LC_ALL") if name in os.environ}
    return {
        **kept,
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": f"copilot-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 -start_epmd false",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
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


def _epmd(environment: dict[str, str], folder: Path) -> Child:
    """Returns a private epmd, Erlang's name service. One that the broker starts would outlive it."""
    program = shutil.which("epmd") or "/usr/lib/erlang/bin/epmd"
    port = int(environment["ERL_EPMD_PORT"])

    async def ready() -> bool:
        return await listens(port)

    return Child(
        "epmd", [program], environment=environment, ready=ready, ready_within=_BOOT_WITHIN, log=folder / "epmd.log"
    )


@dataclass
class _DockerNode:
    dsn: str
    port: int
    name: str
    running: bool = True

    async def start(self) -> None:
        await output_of("docker", "start", self.name)
        await self.is_ready()
        self.running = True

    async def is_ready(self) -> None:
        async with asyncio.timeout(_BOOT_WITHIN):
            while not await takes_connections(self.dsn):
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        await self._end("stop")

    async def kill(self) -> None:
        await self._end("kill")

    async def _end(self, command: str) -> None:
        await output_of("docker", command, self.name)
        self.running = False

    def pause(self) -> None:
        self._run("pause")

    def resume(self) -> None:
        self._run("unpause")

    def _run(self, command: str) -> None:
        subprocess.run(("docker", command, self.name), check=False, capture_output=True, timeout=limit(30))

    async def ctl(self, *arguments: str) -> str:
        return await output_of("docker", "exec", self.name, "rabbitmqctl", "--quiet", *arguments)

    async def eval(self, expression: str) -> str:
        return await self.ctl("eval", f"{expression}.")

    async def close_all_connections(self) -> None:
        await self.eval(CLOSE_ALL)


@asynccontextmanager
async def _docker_node(folder: Path) -> AsyncIterator[RabbitNode]:
    port, name = free_port(), f"copilot-tests-{uuid.uuid4().hex[:8]}"
    files: Sequence[str] = ("-v", f"{folder}/rabbitmq.conf:/etc/rabbitmq/conf.d/20-tests.conf:ro")
    run = ("docker", "run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:5672", *files, IMAGE)
    try:
        subprocess.run(run, check=True, capture_output=True, timeout=limit(600))
        node = _DockerNode(_dsn(port), port, name)
        await node.is_ready()
        yield node
    finally:
        subprocess.run(("docker", "rm", "-f", "-v", name), check=False, capture_output=True, timeout=limit(60))
