"""`python -m backend up`: one command on a bare machine, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from backend.config import Settings
from tests.servers.ports import free_port
from tests.speed import limit

WITHIN = limit(90)


@dataclass
class House:
    """A running `up` in a folder of its own."""

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
        pytest.fail(f"it never said {pattern}:\n" + "".join(self.lines))

    async def end(self) -> int:
        """Reads what is left, and returns the exit code."""
        async with asyncio.timeout(WITHIN):
            output, _ = await self.process.communicate()
        self.lines.append(output.decode())
        assert self.process.returncode is not None
        return self.process.returncode

    def children(self) -> dict[str, int]:
        """The pids of all processes of this folder but the first, by what they are."""
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

    async def nobody_is_left(self) -> None:
        async with asyncio.timeout(limit(20)):
            while self.children():
                await asyncio.sleep(0.02)

    async def ask(self, text: str, session_id: str = "session-of-the-up-tests") -> str:
        """The whole SSE answer to a message, tried until the house takes it."""
        body = {"id": session_id, "messages": [{"role": "user", "parts": [{"type": "text", "text": text}]}]}
        async with asyncio.timeout(WITHIN), httpx.AsyncClient(base_url=self.url, timeout=WITHIN) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.post("/api/chat", json=body)
                    if answer.status_code == 200 and answer.text.rstrip().endswith("data: [DONE]"):
                        return answer.text
                await asyncio.sleep(0.1)


async def start(folder: Path, **settings: str) -> House:
    folder.mkdir(exist_ok=True)
    ours = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"PORT": str(free_port()), "EXECUTOR_PORT": str(free_port()), "SHUTDOWN_GRACE": "2", **settings}
    command = (sys.executable, "-m", "backend", "up")
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment, stdout=PIPE, stderr=STDOUT)
    return House(folder, process)


@asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[House]:
    """A house that is ready; killed afterwards if it still runs."""
    house = await start(folder, **settings)
    try:
        house.url = (await house.read_until(r"CoPilot is ready: http://\S+")).removeprefix("CoPilot is ready: ")
        yield house
    finally:
        if house.process.returncode is None:
            house.process.kill()
            await house.end()
        await house.nobody_is_left()


async def test_a_message_is_answered_and_ctrl_c_stops_everything_cleanly(short_path: Path) -> None:
    async with running(short_path / "house") as house:
        assert '"type":"text-delta"' in await house.ask("/stream 5")
        assert any("scripted model" in line and "redis queue" in line for line in house.lines)
        assert not any("Uvicorn" in line for line in house.lines)
        house.process.send_signal(signal.SIGINT)
        assert await house.end() == 0
        assert "may take up to 2 s" in "".join(house.lines)
        await house.nobody_is_left()
        log = (short_path / "house" / ".data" / "logs" / "postgres.log").read_text()
        assert "database system is shut down" in log


async def test_after_kill_9_nothing_is_left_and_the_next_start_has_the_conversation(short_path: Path) -> None:
    async with running(short_path / "house") as house:
        await house.ask("/stream 3")
        house.process.kill()
        await house.end()
        await house.nobody_is_left()
    async with running(short_path / "house") as house, httpx.AsyncClient(base_url=house.url, timeout=WITHIN) as client:
        session = (await client.get("/api/chat/sessions/session-of-the-up-tests")).json()
        assert [message["role"] for message in session["messages"]] == ["user", "assistant"]


async def test_what_dies_is_started_again_and_said(short_path: Path) -> None:
    async with running(short_path / "house") as house:
        for name, part in (
            ("executor", "-m executor"),
            ("API", "-m backend serve"),
            ("Valkey", "valkey-server"),
            ("PostgreSQL", "bin/postgres"),
        ):
            os.kill(house.pid_of(part), signal.SIGKILL)
            await house.read_until(f"{name} ended \\(signal SIGKILL\\); starting it again")
            await house.read_until(f"{name} runs again")
            assert '"type":"text-delta"' in await house.ask("/stream 3", f"session-after-{name}-died")


async def test_a_wrong_setting_stops_it_with_one_line(short_path: Path) -> None:
    house = await start(short_path / "house", QUEUE="kafka")
    assert await house.end() == 1
    assert re.fullmatch(r"copilot: QUEUE: [^\n]+\n", "".join(house.lines))


async def test_a_port_that_is_taken_stops_it_with_one_line(short_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        house = await start(short_path / "house", PORT=str(taken.getsockname()[1]))
        assert await house.end() == 1
    assert re.fullmatch(
        r"copilot: PORT: cannot listen on 127\.0\.0\.1:\d+: Address already in use; [^\n]+\n", house.lines[-1]
    )


async def test_a_second_one_in_the_same_folder_is_refused_and_the_first_goes_on(short_path: Path) -> None:
    async with running(short_path / "house") as house:
        second = await start(short_path / "house")
        assert await second.end() == 1
        assert "is in use by another running instance" in second.lines[-1]
        assert '"type":"text-delta"' in await house.ask("/stream 3")


async def test_servers_that_the_settings_name_are_used_instead(
    short_path: Path, postgres_dsn: str, redis_dsn: str
) -> None:
    async with running(short_path / "house", DATABASE_URL=postgres_dsn, REDIS_URL=redis_dsn) as house:
        assert not any("postgres" in command or "valkey" in command for command in house.children())
        assert '"type":"text-delta"' in await house.ask("/stream 3")
