"""Text of pages, made by a child process (`extraction_child.py`) because parsers of pages may fail badly.

Each page has a process of its own, that ends with it: nothing of one page is left for the next, none costs anything
while no page is read, and this process imports no parser.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from executor.slots import NoSlot, Slots
from executor.web.failures import WebFailure

MAX_TEXT = 100_000
"""Bytes of the text of a page."""
CHILDREN = 2
"""Children of one executor at a time."""
WAITS = 60.0
"""Seconds for which a page waits for a child."""
RUNS = 20.0
"""Seconds that a child may take. Its limit of CPU time is shorter; this limit matters on a busy machine."""
_MAX_OUTPUT = 8 * MAX_TEXT
"""Bytes of a child's output. A character takes up to six bytes in JSON."""
_CHILD = Path(__file__).with_name("extraction_child.py")
Kind = Literal["html", "lean", "text", "pdf"]
_SAYINGS = {
    "no_text": "There is no text on this page. It may be made by JavaScript, which is not run, or consist of pictures.",
    "binary": "What is at this address is not text.",
    "unreadable": "What is at this address cannot be read.",
}


@dataclass(frozen=True, slots=True)
class Extracted:
    """The text of a page. `cut`: there is more of it."""

    text: str
    title: str | None
    cut: bool


class Extraction:
    """The children of one executor."""

    def __init__(self) -> None:
        self._slots = Slots(CHILDREN, wait=WAITS)

    async def extract(self, kind: Kind, data: bytes, *, charset: str = "", url: str = "", owner: str = "") -> Extracted:
        """Returns the text of a page that `owner` wants; owners take turns. Raises WebFailure."""
        try:
            async with self._slots.slot(owner):
                made = await _run(kind, data, charset, url)
                if made is None and kind == "html":  # the better parser has failed or taken too long
                    made = await _run("lean", data, charset, url)
        except NoSlot:
            raise busy() from None
        code = made.get("error") if made is not None else "unreadable"
        if made is None or isinstance(code, str):
            raise WebFailure(str(code), _SAYINGS.get(str(code), _SAYINGS["unreadable"]))
        title = made.get("title")
        return Extracted(str(made.get("text", "")), str(title) if title else None, bool(made.get("cut")))


def busy() -> WebFailure:
    return WebFailure("busy", "Too many pages are being read at the moment. Try this one again in a minute.")


async def _run(kind: Kind, data: bytes, charset: str, url: str) -> dict[str, object] | None:
    """Returns what a child has made; None if it has met a limit or crashed. Ends the child in any case."""
    command = ("-I", "-B", str(_CHILD), kind, str(MAX_TEXT))
    about = (
        json.dumps({"charset": charset, "url": url}).encode() + b"\n"
    )  # not an argument: other users of the machine can read those
    child = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={}, cwd="/", start_new_session=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        async with asyncio.timeout(RUNS):
            feeding = asyncio.ensure_future(_feed(child.stdin, (about, data)))
            try:
                output = bytearray()
                while len(output) <= _MAX_OUTPUT and (piece := await child.stdout.read(65_536)):
                    output += piece
            finally:
                feeding.cancel()
    except TimeoutError:
        return None
    finally:
        await asyncio.shield(_end(child))
    try:
        made = json.loads(output) if len(output) <= _MAX_OUTPUT else None
    except ValueError:
        return None
    return made if isinstance(made, dict) else None


async def _feed(pipe: asyncio.StreamWriter, pieces: Iterable[bytes]) -> None:
    with suppress(ConnectionError):  # it has ended already
        pipe.writelines(pieces)
        await pipe.drain()
        pipe.close()


async def _end(child: Process) -> None:
    """Kills the child if it runs. Reads what is left of its output, because asyncio waits for the end of that, too."""
    assert child.stdin is not None
    assert child.stdout is not None
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.kill()
    child.stdin.close()
    while await child.stdout.read(65_536):
        pass
    await child.wait()
