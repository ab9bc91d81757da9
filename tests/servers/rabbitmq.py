"""A private RabbitMQ node of an installed rabbitmq-server: own ports, own files, own epmd; dies with the test run."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aio_pika
import pytest

from backend.embedded.children import Child

_INSTALL = ("apt-get", "install", "-y", "--no-install-recommends", "rabbitmq-server")
_PLACES = ("/usr/lib/rabbitmq/bin", "/usr/local/lib/rabbitmq/sbin", "/opt/rabbitmq/sbin", "/opt/homebrew/sbin")
_BOOT_WITHIN = 60.0
_CTL_WITHIN = 60.0


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def server_scripts() -> Path:
    """The folder of the package's own scripts; as root on Debian the package is installed if need be.

    Fails the test with the line that would install it.
    """
    if (found := _find_scripts()) is not None:
        return found
    if shutil.which("apt-get") and os.geteuid() == 0:
        _install()
        if (found := _find_scripts()) is not None:
            return found
    pytest.fail(
        "The tests need RabbitMQ: set RABBITMQ_URL, or install it: sudo apt-get install -y rabbitmq-server",
        pytrace=False,
    )


def _find_scripts() -> Path | None:
    for place in _PLACES:
        if (Path(place) / "rabbitmq-server").is_file():
            return Path(place)
    on_path = shutil.which("rabbitmq-server", path=os.environ.get("PATH", "") + ":/usr/sbin")
    return Path(on_path).resolve().parent if on_path else None


def _install() -> None:
    """Debian's package, without starting its service."""
    keep_stopped = Path("/usr/sbin/policy-rc.d")
    ours = not keep_stopped.exists()
    if ours:
        keep_stopped.write_text("#!/bin/sh\nexit 101\n")
        keep_stopped.chmod(0o755)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(("apt-get", "update"), env=quiet, check=False, timeout=300, stdout=sys.stderr)
        subprocess.run(_INSTALL, env=quiet, check=False, timeout=600, stdout=sys.stderr)
    finally:
        if ours:
            keep_stopped.unlink(missing_ok=True)


@dataclass
class RabbitNode:
    """A node that can be hurt: kill() and start() again keep its data, pause() and resume() freeze it."""

    dsn: str
    port: int
    scripts: Path
    environment: dict[str, str]
    broker: Child

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
        """What `rabbitmqctl ARGUMENTS` prints; takes about a second. Fails the test when it fails."""
        command = [
            str(self.scripts / "rabbitmqctl"),
            "-n",
            self.environment["RABBITMQ_NODENAME"],
            "--quiet",
            *arguments,
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(_CTL_WITHIN):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()


def _environment(folder: Path, scripts: Path, port: int, epmd_port: int) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
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
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
        "RUNNING_UNDER_SYSTEMD": "true",  # the scripts then become the broker, instead of waiting for it
    }


def _epmd(environment: dict[str, str], folder: Path) -> Child:
    """Erlang's name service, ours alone; started by the broker it would stay behind."""
    program = shutil.which("epmd") or "/usr/lib/erlang/bin/epmd"
    port = int(environment["ERL_EPMD_PORT"])

    async def ready() -> bool:
        return await _listens(port)

    return Child("epmd", [program], environment=environment, ready=ready, log=folder / "epmd.log")


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@asynccontextmanager
async def rabbit_node(folder: Path, settings: str = "") -> AsyncIterator[RabbitNode]:
    """A node with its files in `folder`, ready for connections; `settings` is added to its rabbitmq.conf."""
    scripts = server_scripts()
    port = free_port()
    environment = _environment(folder, scripts, port, free_port())
    (folder / "rabbitmq.conf").write_text(
        "loopback_users = none\nlog.console = true\nlog.console.level = info\n" + settings
    )
    (folder / "enabled_plugins").write_text("[].\n")
    dsn = f"amqp://guest:guest@127.0.0.1:{port}/"

    async def ready() -> bool:
        if not await _listens(port):
            return False
        try:
            connection = await aio_pika.connect(dsn, timeout=5)
        except (OSError, TimeoutError, aio_pika.exceptions.AMQPError):
            return False
        await connection.close()
        return True

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
        yield RabbitNode(dsn, port, scripts, environment, broker)
    finally:
        broker.send(signal.SIGCONT)
        await broker.stop(patience=10)
        await epmd.stop()
