"""The client of the sandbox."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import aiohttp

from backend.supervised import start_supervised

CALLS = 2
"""Commands of one executor at a time: each holds its workspace in memory."""
CHECK_EVERY, ANSWERS_WITHIN = 10.0, 15.0
"""Seconds between two looks at the sandbox's health, and for its answer."""
BESIDE = 75.0
"""Seconds that a call may take beyond those of its command: for room, and for the files."""
_PIECE = 262_144
_URL = "http://sandbox"
logger = logging.getLogger(__name__)


class SandboxUnavailable(Exception):
    """The sandbox could not be asked, so nothing ran."""


class SandboxLost(Exception):
    """The connection ended while a command may have run. Its files are lost."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended. `packed`: an archive of its files was received."""

    exit_code: int
    timed_out: bool
    stdout: str
    stderr: str
    packed: bool


class Sandbox:
    """Runs commands in the sandbox at SANDBOX_SOCKET."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._room = asyncio.Semaphore(CALLS)
        self.why_away: str | None = "it has not been asked yet"

    async def run(self, command: str, files: bytes, out: IO[bytes], *, seconds: int) -> Result:
        """Runs a command with the files of a tar archive, and writes the archive of those that are left to `out`.

        Raises SandboxUnavailable, SandboxLost.
        """
        body = json.dumps({"command": command, "seconds": seconds}).encode() + b"\n" + files
        timeout = aiohttp.ClientTimeout(total=seconds + BESIDE, connect=5)
        async with self._room:
            try:
                async with self._session.post(f"{_URL}/run", data=body, timeout=timeout) as response:
                    if response.status != 200:
                        raise SandboxUnavailable(str((await response.json()).get("error"))[:300])
                    told = json.loads(await response.content.readline())
                    async for piece in response.content.iter_chunked(_PIECE):
                        await asyncio.to_thread(out.write, piece)
            except aiohttp.ClientConnectorError as error:
                raise SandboxUnavailable("nothing answers at SANDBOX_SOCKET") from error
            except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
                raise SandboxLost from error
        out.seek(0)
        return Result(**told)

    async def look(self) -> None:
        """Notes whether the sandbox works."""
        timeout = aiohttp.ClientTimeout(total=ANSWERS_WITHIN)
        try:
            async with self._session.get(f"{_URL}/health", timeout=timeout) as response:
                told: Mapping[str, Any] = await response.json()
            why = None if response.status == 200 else str(told.get("why"))[:300]
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            why = f"nothing answers at SANDBOX_SOCKET ({type(error).__name__})"
        if why != self.why_away:
            words = "bash_exec is offered" if why is None else "bash_exec is not offered"
            logger.log(logging.INFO if why is None else logging.WARNING, words, extra={"why": why} if why else {})
        self.why_away = why


@asynccontextmanager
async def open_client(socket: Path) -> AsyncIterator[Sandbox]:
    """Yields a client of the sandbox at this Unix socket, and watches its health."""
    connector = aiohttp.UnixConnector(path=str(socket), limit=CALLS + 1)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=1 << 20) as session:
        sandbox = Sandbox(session)

        async def watch() -> None:
            while True:
                await sandbox.look()
                await asyncio.sleep(CHECK_EVERY)

        await sandbox.look()
        job = start_supervised(watch, "sandbox")
        try:
            yield sandbox
        finally:
            job.cancel()
            with suppress(asyncio.CancelledError):
                await job
