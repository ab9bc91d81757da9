"""Runs chats that use the npm package of this project: each version of the AI SDK over `resumable()`, in Node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.e2e import sdk
from tests.e2e.chat_api import text_in
from tests.servers.starting import OutputFile
from tests.speed import limit

PAGE = ROOT / "web"
PACKAGE = PAGE / "packages" / "resumable-chat"
_LIMIT = limit(60)
_INSTALL_LIMIT = limit(300)


@dataclass(frozen=True, slots=True)
class Page:
    """A page that sends one message."""

    sdk: str
    base: str
    session: str
    headers: Mapping[str, str]
    text: str
    accept: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of a page. `states` are the connection states that it was given, `requests` the requests that it
    sent."""

    messages: list[dict[str, Any]]
    status: str
    statuses: list[str]
    calls: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    states: list[str]
    error: str | None = None

    @property
    def text(self) -> str:
        return text_in(self.messages[-1])

    def assert_no_error(self) -> None:
        """Asserts that there is one question, one answer, and nothing that a page would show as an error."""
        assert (self.error, self.status) == (None, "ready"), self
        assert self.statuses == ["submitted", "streaming", "ready"]
        assert [message["role"] for message in self.messages] == ["user", "assistant"]
        assert [call for call in self.calls if call["call"] == "onError"] == []
        assert self.messages[-1]["metadata"]["status"] == "completed"
        assert self.states[-1:] in ([], ["live"])


async def build_package() -> None:
    """Builds the package, after installing its dependencies, unless its build is newer than its sources: another test
    process may be reading it. Raises RuntimeError if that fails."""
    await sdk.install()
    if not (PAGE / "node_modules" / ".package-lock.json").exists():
        await _run(PAGE, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
    if _newest(PACKAGE / "dist") <= max(_newest(PACKAGE / "src"), (PACKAGE / "tsconfig.json").stat().st_mtime):
        await _run(PACKAGE, "npm", "run", "--silent", "build")


def _newest(folder: Path) -> float:
    return max((file.stat().st_mtime for file in folder.glob("*")), default=0.0)


async def _run(folder: Path, *command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = await _end_of(process, None, _INSTALL_LIMIT)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed in {folder}:\n{output.decode(errors='replace')}")


async def open_pages(pages: Sequence[Page], **options: Any) -> list[Seen]:
    """Sends the messages of all pages at once. Returns what each has seen when its answer has ended."""
    job = {"chats": [asdict(page) for page in pages], "options": options}
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            "node", "resumable.mjs", cwd=sdk.WEB,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=output_file,
        )  # fmt: skip
        output = await _end_of(process, json.dumps(job).encode(), _LIMIT)
        assert process.returncode == 0, output_file.tail()
    return [Seen(**seen) for seen in json.loads(output)]


async def _end_of(process: asyncio.subprocess.Process, data: bytes | None, within: float) -> bytes:
    """Waits for the end of a process and returns its output. Kills it after `within` seconds, and if the caller is
    cancelled."""
    try:
        output, _ = await asyncio.wait_for(process.communicate(data), within)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output
