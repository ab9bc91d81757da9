"""Runs the AI SDK's own clients in a Node process. tests/web/lib/story.mjs lists the acts that it can play."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests import ROOT
from tests.servers.node_process import node_process
from tests.servers.starting import OutputFile
from tests.speed import limit

WEB = ROOT / "tests" / "web"
VERSIONS = ("5.0.200", "5.0.277", "6.0.324", "7.0.173")
_INSTALL_LIMIT = limit(300)
ACT_LIMIT = limit(30)

Act = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tab:
    """The state of one page. `legs` are the fetches of its chat, each with its `requests` and their `events`."""

    messages: list[dict[str, Any]]
    status: str
    error: str | None
    statuses: list[str]
    calls: list[dict[str, Any]]
    legs: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        return self.messages[-1]

    @property
    def text(self) -> str:
        """The text of the last message."""
        return "".join(part["text"] for part in self.last["parts"] if part["type"] == "text")

    @property
    def roles(self) -> list[str]:
        return [message["role"] for message in self.messages]

    def parts(self, kind: str) -> list[dict[str, Any]]:
        """Returns the last message's parts of that type."""
        return [part for part in self.last["parts"] if part["type"] == kind]

    def requests(self, leg: int = -1) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = self.legs[leg]["requests"]
        return requests

    def chunks(self, leg: int = -1) -> list[dict[str, Any]]:
        """Returns the chunks of one fetch, over all of its connections."""
        return [json.loads(event["data"]) for request in self.requests(leg) for event in request["events"]]

    def finished(self) -> list[dict[str, Any]]:
        """Returns the calls of `onFinish`."""
        return [call for call in self.calls if call["call"] == "onFinish"]


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a story. `faults` is empty if every tab saw a correct stream and holds correct messages."""

    faults: list[str]
    tabs: dict[str, Tab]
    results: list[Any]


class SdkClients:
    """Plays stories (lists of acts), any number at once. Open it with `open_sdk_clients`."""

    def __init__(self, process: asyncio.subprocess.Process, output_file: OutputFile) -> None:
        self._process = process
        self._output_file = output_file
        self._over = False
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next = 0

    async def play(
        self,
        sdk: str,
        base: str,
        session: str,
        acts: Sequence[Act],
        *,
        headers: Mapping[str, str] | None = None,
        within: float = ACT_LIMIT,
    ) -> Report:
        """Plays one story over one session and returns its report. No act may take longer than `within` seconds."""
        number = self._next = self._next + 1
        job = {
            "id": number, "sdk": sdk, "base": base, "session": session, "headers": dict(headers or {}),
            "acts": list(acts), "limit_ms": int(within * 1000),
        }  # fmt: skip
        if self._over:
            raise self._ended()
        assert self._process.stdin is not None
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # `read_reports` notices the end, too
            await self._process.stdin.drain()
        report = await asyncio.wait_for(answer, within * len(acts) + ACT_LIMIT)
        tabs = {name: Tab(**{"error": None, **tab}) for name, tab in report["tabs"].items()}
        return Report(report["faults"], tabs, report["results"])

    async def read_reports(self) -> None:
        """Passes each report to the story that waits for it, until the process ends."""
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                report = json.loads(line)
                answer = self._waiting.pop(report["id"])
                if not answer.done():
                    answer.set_result(report)
        finally:
            self._over = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(self._ended())

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"the Node process ended:\n{self._output_file.tail()}")


@asynccontextmanager
async def open_sdk_clients() -> AsyncIterator[SdkClients]:
    """Installs the clients if necessary (npm ci) and starts Node. Ends it when the block is left."""
    await install()
    async with node_process(WEB, "client.mjs", peer=SdkClients, read=SdkClients.read_reports) as clients:
        yield clients


async def install() -> None:
    """Installs the clients. Raises RuntimeError if Node or npm is missing, because these tests are not optional."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise RuntimeError("the AI SDK tests need Node 20 and npm: apt-get install nodejs npm")
    installed, wanted = WEB / "node_modules" / ".package-lock.json", WEB / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime:
        return
    code, output = await run("npm", "ci", "--no-audit", "--no-fund", within=_INSTALL_LIMIT)
    if code != 0:
        raise RuntimeError(f"npm ci failed in {WEB}:\n{output}")
    installed.touch()


async def run(*command: str, within: float) -> tuple[int | None, str]:
    """Runs a command in tests/web. Returns its exit code and its output."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=WEB, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), within)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode, output.decode(errors="replace")
