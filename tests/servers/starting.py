"""Waits until a process that a test has started is ready. Fails at once if the process ends first."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from asyncio import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

from tests.servers.fork_server import Process
from tests.speed import limit

START_LIMIT = limit(60)
_TAIL = 4_000


class NotStarted(RuntimeError):
    """Raised when a process ended, or was not ready in time. The message contains the end of its output."""


class OutputFile:
    """An unnamed file for the output of a process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fileno(self) -> int:
        return self._file.fileno()

    def tail(self) -> str:
        """Returns the last 4,000 bytes as text."""
        size = os.fstat(self.fileno()).st_size
        return os.pread(self.fileno(), _TAIL, max(0, size - _TAIL)).decode(errors="replace") or "(it printed nothing)"


async def listens(port: int, address: str = "127.0.0.1") -> bool:
    """Returns True if a process accepts connections at that port, on loopback or at another address."""
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


async def first_line(
    process: subprocess.Process, name: str, output: Callable[[], str], within: float = START_LIMIT
) -> str:
    """Returns the first line on the standard output of a process. Raises NotStarted with the text that `output` returns
    if there is none within `within` seconds."""
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), within)
    except TimeoutError:
        raise NotStarted(f"{name} was not ready within {within:.0f} s:\n{output()}") from None
    if not line:
        raise NotStarted(f"{name} ended before it was ready, with {await process.wait()}:\n{output()}")
    return line.decode()


async def until_ready(
    process: Process,
    name: str,
    is_ready: Callable[[], Awaitable[bool]],
    output: Callable[[], str],
    within: float = START_LIMIT,
) -> None:
    """Calls `is_ready` until it returns True. Raises NotStarted with the text that `output` returns if that takes more
    than `within` seconds or the process ends."""
    deadline = time.monotonic() + within
    while not await is_ready():
        if process.returncode is not None:
            raise NotStarted(f"{name} ended before it was ready, with {process.returncode}:\n{output()}")
        if time.monotonic() > deadline:
            raise NotStarted(f"{name} was not ready within {within:.0f} s:\n{output()}")
        await asyncio.sleep(0.05)  # between two checks of a bounded wait
