"""The process that runs commands in sandboxes: an HTTP server on a Unix socket, for executors of this machine.

POST /run     body and answer: a line of JSON, then a tar archive. The line of the request is
              {"command": TEXT, "seconds": 1 to 120}; that of the answer {"exit_code", "timed_out", "stdout", "stderr",
              "packed"}, and without "packed" no archive follows. 400 for a bad request, 503 if there is no room.
GET /health   200 {"works": true}, or 503 {"works": false, "why": TEXT}

Who can open the socket may run commands: it is readable for its owner alone. A request whose connection ends is
cancelled, so a command ends with the executor that asked for it. All sandboxes end with this process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from executor.sandbox.archives import pack
from executor.sandbox.bubblewrap import find_bubblewrap
from executor.sandbox.running import ARCHIVE_BYTES, MAX_COMMAND, MAX_SECONDS, Finished, SandboxFailed, run

RUNS = 4
"""Commands that run at a time."""
WAITS, PROBE_SECONDS = 20.0, 10
"""Seconds that a command waits for room, and that the probe may take."""
PROBE_EVERY = 60.0
"""Seconds between two probes."""
_LINE = 262_144
"""Bytes of the first line, in which a character may take 12."""
_PIECE = 262_144
logger = logging.getLogger(__name__)


class Server:
    """Runs the commands of all executors."""

    def __init__(self, program: str | None) -> None:
        self._program = program
        self._room = asyncio.Semaphore(RUNS)
        self.why: str | None = "it has not been tried yet"

    async def probe(self) -> None:
        """Runs `true` as any other command, and notes whether that works."""
        why = await self._why_not()
        if why is None and self.why is not None:
            logger.info("sandbox works")
        elif why != self.why:
            logger.warning("sandbox does not work", extra={"why": why})
        self.why = why

    async def _why_not(self) -> str | None:
        if self._program is None:
            return "bubblewrap is not installed"
        with tempfile.TemporaryFile() as files, tempfile.TemporaryFile() as out:
            files.write(pack({}))
            files.seek(0)
            try:
                done = await run(self._program, "true", files, out, seconds=PROBE_SECONDS)
            except (SandboxFailed, OSError) as error:
                return str(error)
        if done.exit_code == 0 and done.packed:
            return None
        return f"the command `true` ended with {done.exit_code}: {done.stderr[:200]}"

    async def health(self, _: web.Request) -> web.Response:
        if self.why is None:
            return web.json_response({"works": True})
        return web.json_response({"works": False, "why": self.why}, status=503)

    async def run(self, request: web.Request) -> web.StreamResponse:
        with tempfile.TemporaryFile() as files, tempfile.TemporaryFile() as out:
            try:
                command, seconds = await _read(request, files)
            except ValueError as error:
                return web.json_response({"error": str(error)}, status=400)
            except OSError as error:
                return web.json_response({"error": f"there is no room for the files ({error.strerror})"}, status=503)
            try:
                async with asyncio.timeout(WAITS):
                    await self._room.acquire()
            except TimeoutError:
                return web.json_response({"error": "all places are taken"}, status=503)
            try:
                if self._program is None:
                    return web.json_response({"error": self.why}, status=503)
                done = await run(self._program, command, files, out, seconds=seconds)
            except SandboxFailed as error:
                return web.json_response({"error": str(error)}, status=503)
            finally:
                self._room.release()
            return await _answer(request, done, out)


async def _read(request: web.Request, files: IO[bytes]) -> tuple[str, int]:
    """Copies the archive of a request to `files`. Returns the command and its seconds. Raises ValueError."""
    try:
        line = await request.content.readline()
    except HttpProcessingError as error:
        raise ValueError("the first line is too long") from error
    if not line.endswith(b"\n"):
        raise ValueError("the body begins with a line of JSON")
    wanted = json.loads(line)
    command, seconds = (wanted.get("command"), wanted.get("seconds")) if isinstance(wanted, dict) else (None, None)
    if not isinstance(command, str) or not 0 < len(command) <= MAX_COMMAND or "\x00" in command:
        raise ValueError(f"command: a text of up to {MAX_COMMAND} characters")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= MAX_SECONDS:
        raise ValueError(f"seconds: a number from 1 to {MAX_SECONDS}")
    size = 0
    async for piece in request.content.iter_chunked(_PIECE):
        if (size := size + len(piece)) > ARCHIVE_BYTES:
            raise ValueError(f"the archive has more than {ARCHIVE_BYTES} bytes")
        files.write(piece)
    files.seek(0)
    return command, seconds


async def _answer(request: web.Request, done: Finished, out: IO[bytes]) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(json.dumps(asdict(done)).encode() + b"\n")
    while done.packed and (piece := await asyncio.to_thread(out.read, _PIECE)):
        await response.write(piece)
    await response.write_eof()
    return response


def _remove_socket(path: Path) -> None:
    """Removes the socket of a process that was killed. Anything else at this path stays, and the start fails."""
    if path.is_socket():
        path.unlink(missing_ok=True)


@asynccontextmanager
async def serving(socket: Path, program: str | None = None) -> AsyncIterator[Server]:
    """Serves at the path of a Unix socket while the block runs. `program` is bwrap; without it, it is looked for."""
    server = Server(program or find_bubblewrap())
    await server.probe()
    app = web.Application()
    app.add_routes([web.get("/health", server.health), web.post("/run", server.run)])
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, read_bufsize=_LINE)
    await runner.setup()
    try:
        _remove_socket(socket)
        before = os.umask(0o177)
        try:
            await web.UnixSite(runner, socket).start()
        finally:
            os.umask(before)
        yield server
    finally:
        await runner.cleanup()  # it removes the socket
