"""Chats of people who use our npm package: the AI SDK of each version over `resumable()`, in a Node process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.e2e import sdk
from tests.e2e.stack import ROOT
from tests.e2e.talk import text_in
from tests.servers.starting import Words
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
    """What a page saw. `states` is what its sign showed, `requests` what crossed the wire."""

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

    def assert_untroubled(self) -> None:
        """One question, one answer, and nothing that a page would show as an error."""
        assert (self.error, self.status) == (None, "ready"), self
        assert self.statuses == ["submitted", "streaming", "ready"]
        assert [message["role"] for message in self.messages] == ["user", "assistant"]
        assert [call for call in self.calls if call["call"] == "onError"] == []
        assert self.messages[-1]["metadata"]["status"] == "completed"
        assert self.states[-1:] in ([], ["live"])


async def build_package() -> None:
    """Builds the package, with what npm has to bring. Raises RuntimeError when that fails."""
    await sdk.install()
    if not (PAGE / "node_modules" / ".package-lock.json").exists():
        await _run(PAGE, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
    await _run(PACKAGE, "npm", "run", "--silent", "build")


async def _run(folder: Path, *command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = await _end_of(process, None, _INSTALL_LIMIT)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed in {folder}:\n{output.decode(errors='replace')}")


async def open_pages(pages: Sequence[Page], **options: Any) -> list[Seen]:
    """Sends the messages of all pages at once; what each has seen when its answer was over."""
    job = {"chats": [asdict(page) for page in pages], "options": options}
    with Words() as words:
        process = await asyncio.create_subprocess_exec(
            "node", "resumable.mjs", cwd=sdk.WEB,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=words,
        )  # fmt: skip
        output = await _end_of(process, json.dumps(job).encode(), _LIMIT)
        assert process.returncode == 0, words.tail()
    return [Seen(**seen) for seen in json.loads(output)]


async def _end_of(process: asyncio.subprocess.Process, told: bytes | None, within: float) -> bytes:
    """What it printed. Killed after `within` seconds, and when whoever waits goes away."""
    try:
        output, _ = await asyncio.wait_for(process.communicate(told), within)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output
