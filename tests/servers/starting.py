"""Waits until a process that a test has started is ready; a process that ends first is noticed at once."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from typing import Self

from tests.speed import limit

START_LIMIT = limit(60)
_TAIL = 4_000


class NotStarted(RuntimeError):
    """A process ended, or was not ready in time. The message has the end of what it said."""


class Words:
    """Keeps what a process writes to a file without a name."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fileno(self) -> int:
        return self._file.fileno()

    def tail(self) -> str:
        """Returns the last 4,000 bytes."""
        size = os.fstat(self.fileno()).st_size
        return os.pread(self.fileno(), _TAIL, max(0, size - _TAIL)).decode(errors="replace") or "(it said nothing)"


async def first_line(process: Process, name: str, words: Callable[[], str], within: float = START_LIMIT) -> str:
    """Returns the first line on the standard output of a process. What `words` returns is shown when there is none."""
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), within)
    except TimeoutError:
        raise NotStarted(f"{name} was not ready within {within:.0f} s:\n{words()}") from None
    if not line:
        raise NotStarted(f"{name} ended before it was ready, with {await process.wait()}:\n{words()}")
    return line.decode()


async def until_ready(
    process: Process,
    name: str,
    is_ready: Callable[[], Awaitable[bool]],
    words: Callable[[], str],
    within: float = START_LIMIT,
) -> None:
    """Asks `is_ready` until it says yes. What `words` returns is shown when it does not, or when the process ends."""
    deadline = time.monotonic() + within
    while not await is_ready():
        if process.returncode is not None:
            raise NotStarted(f"{name} ended before it was ready, with {process.returncode}:\n{words()}")
        if time.monotonic() > deadline:
            raise NotStarted(f"{name} was not ready within {within:.0f} s:\n{words()}")
        await asyncio.sleep(0.05)  # between two questions of a bounded wait
