"""The client of the sandbox."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, get_type_hints

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from backend.supervised import start_supervised
from executor.sandbox.running import ARCHIVE_BYTES

CALLS = 2
"""Commands of one executor at a time: each holds its workspace in memory."""
CHECK_EVERY, ANSWERS_WITHIN = 10.0, 15.0
"""Seconds between two looks at the sandbox's health, and for its answer."""
BESIDE = 75.0
"""Seconds that a call may take beyond those of its command: for room in the sandbox, and for the files."""
PLACE_WITHIN = 60.0
"""Seconds that a call waits for one of the CALLS places."""
_PIECE = 262_144
_URL = "http://sandbox"
_NOTHING_RAN = (400, 503)
"""Statuses with which the sandbox says so."""
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

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Holds one of the CALLS places. Enter it before the files of a command are read.

        Raises SandboxUnavailable if there is none for PLACE_WITHIN.
        """
        try:
            async with asyncio.timeout(PLACE_WITHIN):
                await self._room.acquire()
        except TimeoutError as error:
            raise SandboxUnavailable("all places are taken") from error
        try:
            yield
        finally:
            self._room.release()

    async def run(self, command: str, files: IO[bytes], out: IO[bytes], *, seconds: int) -> Result:
        """Runs a command with the files of a tar archive, and writes the archive of those that are left to `out`.

        Raises SandboxUnavailable, SandboxLost.
        """
        body = _body(json.dumps({"command": command, "seconds": seconds}).encode() + b"\n", files)
        timeout = aiohttp.ClientTimeout(total=seconds + BESIDE, connect=5)
        size = 0
        try:
            async with self._session.post(f"{_URL}/run", data=body, timeout=timeout) as response:
                if response.status in _NOTHING_RAN:
                    told = await response.json()
                    raise SandboxUnavailable(str(told["error"] if isinstance(told, dict) else told)[:300])
                result = _read_result(await response.content.readline())
                async for piece in response.content.iter_chunked(_PIECE):
                    if (size := size + len(piece)) > ARCHIVE_BYTES:
                        raise SandboxLost
                    await asyncio.to_thread(out.write, piece)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise SandboxUnavailable("nothing answers at SANDBOX_SOCKET") from error
        except (aiohttp.ClientError, HttpProcessingError, TimeoutError, ValueError, KeyError, OSError) as error:
            raise SandboxLost from error
        out.seek(0)
        return result

    async def look(self) -> None:
        """Notes whether the sandbox works."""
        timeout = aiohttp.ClientTimeout(total=ANSWERS_WITHIN)
        try:
            async with self._session.get(f"{_URL}/health", timeout=timeout) as response:
                told = await response.json()
            why = None if response.status == 200 else str(told.get("why") if isinstance(told, dict) else told)[:300]
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            why = f"nothing answers at SANDBOX_SOCKET ({type(error).__name__})"
        if why != self.why_away:
            words = "bash_exec is offered" if why is None else "bash_exec is not offered"
            logger.log(logging.INFO if why is None else logging.WARNING, words, extra={"why": why} if why else {})
        self.why_away = why


async def _body(line: bytes, files: IO[bytes]) -> AsyncIterator[bytes]:
    yield line
    files.seek(0)
    while piece := await asyncio.to_thread(files.read, _PIECE):
        yield piece


def _read_result(line: bytes) -> Result:
    """Raises ValueError."""
    told = json.loads(line)
    kinds = get_type_hints(Result)
    if not isinstance(told, dict) or {name: type(value) for name, value in told.items()} != kinds:
        raise ValueError("the sandbox did not answer with a result")
    return Result(**told)


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
