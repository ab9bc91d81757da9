"""Tests of `python -m backend up`, which starts everything on a bare machine and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from backend.config import Settings
from tests import ROOT
from tests.plain_http import http_client
from tests.servers.ports import free_port
from tests.speed import limit

WITHIN = limit(90)


@dataclass
class Service:
    """A running `up` in its own folder."""

    folder: Path
    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    url: str = ""

    async def read_until(self, pattern: str) -> str:
        assert self.process.stdout is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHIN):
                while line := (await self.process.stdout.readline()).decode():
                    self.lines.append(line)
                    if found := re.search(pattern, line):
                        return found[0]
        pytest.fail(f"it never printed {pattern}:\n" + "".join(self.lines))

    async def end(self) -> int:
        """Reads the rest of the output, and returns the exit code."""
        async with asyncio.timeout(WITHIN):
            output, _ = await self.process.communicate()
        self.lines.append(output.decode())
        assert self.process.returncode is not None
        return self.process.returncode

    def children(self) -> dict[str, int]:
        """Returns the pids of all processes in this folder, except `up` itself, by their command lines."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if int(entry.name) in (self.process.pid, os.getpid()):
                    continue
                if str((entry / "cwd").readlink()).startswith(str(self.folder)):
                    found[(entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()] = int(entry.name)
        return found

    def pid_of(self, part: str) -> int:
        return next(pid for command, pid in self.children().items() if part in command)

    async def until_no_process_is_left(self) -> None:
        async with asyncio.timeout(limit(20)):
            while self.children():
                await asyncio.sleep(0.02)

    async def ask(self, text: str, session_id: str = "session-of-the-up-tests") -> str:
        """Sends a message until it is answered, and returns the body of the whole stream."""
        body = {"id": session_id, "messages": [{"role": "user", "parts": [{"type": "text", "text": text}]}]}
        async with asyncio.timeout(WITHIN), http_client(base_url=self.url, timeout=WITHIN) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.post("/api/chat", json=body)
                    if answer.status_code == 200 and answer.text.rstrip().endswith("data: [DONE]"):
                        return answer.text
                await asyncio.sleep(0.1)


async def start(folder: Path, **settings: str) -> Service:
    folder.mkdir(exist_ok=True)
    names = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"PORT": str(free_port()), "EXECUTOR_PORT": str(free_port()), "SHUTDOWN_GRACE": "2", **settings}
    command = (sys.executable, "-m", "backend", "up")
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment, stdout=PIPE, stderr=STDOUT)
    return Service(folder, process)


@asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[Service]:
    """Starts `up` and waits until it is ready. Kills it afterwards if it still runs."""
    service = await start(folder, **settings)
    try:
        service.url = (await service.read_until(r"CoPilot is ready: http://\S+")).removeprefix("CoPilot is ready: ")
        yield service
    finally:
        if service.process.returncode is None:
            service.process.kill()
            await service.end()
        await service.until_no_process_is_left()


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    """A running `up` for tests that do not end it. It has the examples, as `make run` has."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        (Path(folder) / "service").mkdir()
        (Path(folder) / "service" / "examples").symlink_to(ROOT / "examples")
        async with running(Path(folder) / "service") as service:
            yield service


async def test_a_message_is_answered_and_ctrl_c_stops_everything_cleanly(short_path: Path) -> None:
    async with running(short_path / "service") as service:
        assert '"type":"text-delta"' in await service.ask("/stream 5")
        ready = next(line for line in service.lines if "CoPilot is ready" in line)
        assert all(part in ready for part in ("scripted model", "one user, without a login", "redis queue"))
        assert not any("Uvicorn" in line for line in service.lines)
        service.process.send_signal(signal.SIGINT)
        assert await service.end() == 0
        assert "have up to 2 s to finish" in "".join(service.lines)
        await service.until_no_process_is_left()
        log = (short_path / "service" / ".data" / "logs" / "postgres.log").read_text()
        assert "database system is shut down" in log


async def test_after_kill_9_nothing_is_left_and_the_next_start_has_the_conversation(short_path: Path) -> None:
    async with running(short_path / "service") as service:
        await service.ask("/stream 3")
        service.process.kill()
        await service.end()
        await service.until_no_process_is_left()
    async with (
        running(short_path / "service") as service,
        http_client(base_url=service.url, timeout=WITHIN) as client,
    ):
        session = (await client.get("/api/chat/sessions/session-of-the-up-tests")).json()
        assert [message["role"] for message in session["messages"]] == ["user", "assistant"]


async def test_a_process_that_dies_is_restarted_and_reported(service: Service) -> None:
    for name, part in (
        ("executor", "-m executor"),
        ("API", "-m backend serve"),
        ("Valkey", "valkey-server"),
        ("PostgreSQL", "bin/postgres"),
    ):
        os.kill(service.pid_of(part), signal.SIGKILL)
        await service.read_until(f"{name} ended \\(signal SIGKILL\\); restarting it")
        await service.read_until(f"{name} is running again")
        assert '"type":"text-delta"' in await service.ask("/stream 3", f"session-after-{name}-died")


async def test_an_agent_is_made_and_run_and_its_runs_outlive_the_process(service: Service) -> None:
    goal = json.dumps({"description": "an agent that adds two numbers [generator: 200 delay=0]"})
    await service.ask(f"/tool create_agent {goal}", "session-that-makes-an-agent")
    async with http_client(base_url=service.url, timeout=WITHIN) as client:
        (agent,) = (await client.get("/api/library/agents")).json()["agents"]
        await service.ask(f'Run the agent {agent["id"]} with {{"a": 2, "b": 40}}', "session-that-runs-an-agent")
        os.kill(service.pid_of("examples.agent_generator"), signal.SIGKILL)
        await service.read_until("agent generator is running again")
        look = f"/tool view_agent_output {json.dumps({'agent_id': agent['id']})}"
        async with asyncio.timeout(WITHIN):
            while "[42]" not in await service.ask(look, "session-that-looks-at-it"):
                await asyncio.sleep(0.2)


async def test_an_invalid_setting_ends_the_command_with_one_line(short_path: Path) -> None:
    service = await start(short_path / "service", QUEUE="kafka")
    assert await service.end() == 1
    assert re.fullmatch(r"copilot: QUEUE: [^\n]+\n", "".join(service.lines))


async def test_a_missing_key_ends_the_command_with_one_line_before_anything_is_started(short_path: Path) -> None:
    service = await start(short_path / "service", CHAT_PROVIDER="openai")
    assert await service.end() == 1
    assert service.lines == ["copilot: CHAT_API_KEY (or OPEN_ROUTER_API_KEY, OPENAI_API_KEY) is not set\n"]
    assert not (short_path / "service" / ".data").exists()


async def test_a_port_in_use_ends_the_command_with_one_line(short_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = await start(short_path / "service", PORT=str(taken.getsockname()[1]))
        assert await service.end() == 1
    assert re.fullmatch(
        r"copilot: PORT: cannot listen on 127\.0\.0\.1:\d+: Address already in use; [^\n]+\n", service.lines[-1]
    )


async def test_one_port_for_both_processes_ends_the_command_with_one_line(short_path: Path) -> None:
    port = str(free_port())
    service = await start(short_path / "service", PORT=port, EXECUTOR_PORT=port)
    assert await service.end() == 1
    assert service.lines == [f"copilot: PORT and EXECUTOR_PORT are both {port}; each process needs its own\n"]


async def test_a_second_instance_in_the_same_folder_is_refused_and_the_first_continues(service: Service) -> None:
    second = await start(service.folder)
    assert await second.end() == 1
    assert "is in use by another running instance" in second.lines[-1]
    assert '"type":"text-delta"' in await service.ask("/stream 3")


async def test_servers_named_by_the_settings_replace_the_embedded_ones(
    short_path: Path, postgres_dsn: str, redis_dsn: str
) -> None:
    async with running(short_path / "service", DATABASE_URL=postgres_dsn, REDIS_URL=redis_dsn) as service:
        assert not any("postgres" in command or "valkey" in command for command in service.children())
        assert '"type":"text-delta"' in await service.ask("/stream 3")
