"""Pictures, PDFs and Office files are read by a child process (`child.py`), because their decoders may fail badly."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import IO, Any

from backend.errors import PictureTooLarge, ServerBusy, UnreadableFile, UnsupportedFile

MAX_PIXELS = 40_000_000
MAX_TEXT = 60_000
"""Characters of a PDF, of an Office file, or of a text, that a model may read."""
CHILDREN = 2
"""Children of one process at a time."""
WAITS, RUNS = 20.0, 30.0
"""Seconds for which a file waits for a child, and for which a child runs."""
_CHILD = Path(__file__).with_name("child.py")
_ERRORS = 65_536
"""Bytes that a child may write to its standard error: libraries warn there."""


_NOT_READ = {
    "protected": "The file has a password. Save it without one.",
    "old_format": "This is an older format of Office. Save the file as .docx, .xlsx or PDF.",
    "unsupported": None,
}
"""Errors of `office` for files that may be whole, with what the user reads; None: the sentence of UnsupportedFile."""


class FileReader:
    """The children of one process that read files."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(CHILDREN)

    async def write_picture(self, given: IO[bytes], out: IO[bytes]) -> str:
        """Writes the picture again, and returns its new type. Raises PictureTooLarge, UnreadableFile, ServerBusy."""
        result = await self._run("picture", MAX_PIXELS, given, out)
        if result.get("error") == "too_large":
            raise PictureTooLarge(
                f"The picture has {result['width']} times {result['height']} pixels; the limit is 40 million."
            )
        return str(_checked(result)["media_type"])

    async def count_pages(self, given: IO[bytes], out: IO[bytes]) -> int:
        """Returns the number of a PDF's pages. Raises UnreadableFile, ServerBusy."""
        return int(_checked(await self._run("pages", 0, given, out))["pages"])

    async def office_type(self, given: IO[bytes], out: IO[bytes]) -> str:
        """Returns the type of an Office file. Raises UnsupportedFile, UnreadableFile, ServerBusy."""
        result = await self._run("office", 0, given, out)
        if (error := str(result.get("error"))) in _NOT_READ:
            raise UnsupportedFile(_NOT_READ[error])
        return str(_checked(result)["media_type"])

    async def text_of(self, data: bytes) -> bytes:
        """Returns the text of a PDF or an Office file in UTF-8, up to MAX_TEXT characters.

        Raises UnreadableFile, ServerBusy.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
            given.write(data)
            given.flush()
            _checked(await self._run("text", MAX_TEXT, given, out))
            out.seek(0)
            return await asyncio.to_thread(out.read)

    async def _run(self, command: str, limit: int, given: IO[bytes], out: IO[bytes]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(WAITS):
                await self._room.acquire()
        except TimeoutError:
            raise ServerBusy from None
        try:
            return await _result(command, limit, given, out)
        finally:
            self._room.release()


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    if "error" in result:
        raise UnreadableFile
    return result


async def _result(command: str, limit: int, given: IO[bytes], out: IO[bytes]) -> dict[str, Any]:
    from backend.embedded.children import tied_to_parent  # imported late: most processes read no file

    given.seek(0)
    line = [sys.executable, "-I", str(_CHILD), command, str(limit)]
    process = await asyncio.create_subprocess_exec(
        *tied_to_parent(line, death_signal=signal.SIGKILL), stdin=given, stdout=out, stderr=PIPE, env={}
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(RUNS):
            said = b""
            while piece := await process.stderr.read(_ERRORS):
                said = (said + piece)[-_ERRORS:]
            await process.wait()
    except TimeoutError:
        return {"error": "unreadable"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _parsed(said) if process.returncode == 0 else {"error": "unreadable"}


def _parsed(said: bytes) -> dict[str, Any]:
    try:
        result = json.loads(said.rstrip().rpartition(b"\n")[2])
    except ValueError:
        return {"error": "unreadable"}
    return result if isinstance(result, dict) else {"error": "unreadable"}
