"""Runs one command in a sandbox, with the files of its workspace."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from executor.sandbox import bubblewrap

MAX_COMMAND = 20_000
MAX_SECONDS = 120
OUTPUT_BYTES = 30_000
"""Bytes of each output that are kept: half from its beginning, half from its end."""
ARCHIVE_BYTES = bubblewrap.WORKSPACE_BYTES + 8_388_608
"""Bytes of the archive that a sandbox may pack."""
PACKED_WITHIN = 15.0
"""Seconds for unpacking the files before the command, and for packing them afterwards."""
_PIECE = 65_536
_SCRIPT = """
tar -x -f - -C {folder} --no-same-owner <&{given} 2>/dev/null || exit 125
{limits} timeout --kill-after=1 {seconds} bash -c "$1" {given}<&- {packed}>&- </dev/null
code=$?
kill -KILL -1 2>/dev/null
chmod -R u+rwX {folder} 2>/dev/null
tar -c --format=gnu -f - -C {folder} . >&{packed} 2>/dev/null
exit $code
"""
"""What runs in the sandbox, with the command as $1. `kill` ends what the command has left behind, before the files are
packed. `chmod` lets tar read all of them: those that it cannot read would count as deleted. Exit code 125 without an
archive: the files could not be unpacked."""


_NOBODY: dict[str, Any] = {"user": 65_534, "group": 65_534, "extra_groups": ()} if os.geteuid() == 0 else {}
"""The user of sandboxes if this process runs as root: Linux does not limit how many processes root has."""
_KILLED_BY_TIMEOUT, _NOT_UNPACKED = (124, 137), 125


class SandboxFailed(Exception):
    """The sandbox itself does not work; the message has its words."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended. `packed` is False if the files in the archive are not to be used."""

    exit_code: int
    timed_out: bool
    stdout: str
    stderr: str
    packed: bool


class Output:
    """Keeps the beginning and the end of what a process writes, and forgets the rest at once."""

    def __init__(self, most: int = OUTPUT_BYTES) -> None:
        self._half = most // 2
        self._head, self._tail, self._left_out = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[max(0, room) :]
        if (surplus := len(self._tail) - self._half) > 0:
            del self._tail[:surplus]
            self._left_out += surplus

    @property
    def text(self) -> str:
        marker = f"\n[{self._left_out} bytes are left out]\n".encode() if self._left_out else b""
        return (self._head + marker + self._tail).decode("utf-8", "replace").replace("\x00", "\ufffd")


async def run(program: str, command: str, files: IO[bytes], out: IO[bytes], *, seconds: int) -> Finished:
    """Runs `command` by bash, with the tar archive `files` unpacked in /workspace; packs that into `out` afterwards.

    `program` is bwrap. A command that takes longer than `seconds` is killed, and its files are kept all the same.
    Raises SandboxFailed. When cancelled, kills everything.
    """
    with _pipe() as (options, options_in), _pipe() as (given, given_in), _pipe() as (packed_out, packed):
        options_in.write(bubblewrap.arguments())  # less than a pipe holds
        options_in.close()
        script = _SCRIPT.format(
            folder=bubblewrap.WORKSPACE,
            given=given.fileno(),
            packed=packed.fileno(),
            limits=" ".join(bubblewrap.limits(seconds + 1)),
            seconds=seconds,
        )
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *(program, "--args", str(options.fileno()), "--", "/bin/bash", "-c", script, "bash", command),
                stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env={}, cwd="/", start_new_session=True,
                pass_fds=(options.fileno(), given.fileno(), packed.fileno()), **_NOBODY,
            )
        )  # fmt: skip
        process, cancelled = await _started(starting)
        for theirs in (options, given, packed):
            theirs.close()
        started = time.monotonic()
        feeding = asyncio.create_task(asyncio.to_thread(_copy_in, files, given_in))
        taking = asyncio.create_task(asyncio.to_thread(_copy_out, packed_out, out))
        stdout, stderr, late = Output(), Output(), False
        try:
            if cancelled:
                raise asyncio.CancelledError
            async with asyncio.timeout(seconds + 2 * PACKED_WITHIN):
                await asyncio.gather(_drain(process.stdout, stdout), _drain(process.stderr, stderr))
                await process.wait()
        except TimeoutError:
            late = True
        finally:
            size = await asyncio.shield(asyncio.ensure_future(_end(process, feeding, taking)))
    lasted = time.monotonic() - started
    code = process.returncode if process.returncode is not None else -signal.SIGKILL
    if size == 0 and not late and code == 1 and stderr.text.startswith("bwrap: "):
        raise SandboxFailed(stderr.text.strip()[:300])
    if size == 0 and not late and code == _NOT_UNPACKED:
        raise SandboxFailed("the files could not be unpacked")
    timed_out = late or (code in _KILLED_BY_TIMEOUT and lasted >= seconds)
    return Finished(code, timed_out, stdout.text, stderr.text, bool(size) and not late)


async def _started(starting: asyncio.Future[Process]) -> tuple[Process, bool]:
    """Returns a process, and whether this task was cancelled while it started.

    A start of asyncio (Python 3.11) that is cancelled may wait forever and leave its pipes open, so it is not. Raises
    SandboxFailed.
    """
    cancelled = False
    try:
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            cancelled = True
        return await starting, cancelled
    except (OSError, ValueError) as error:
        raise SandboxFailed(f"bubblewrap cannot be started ({type(error).__name__})") from error


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Yields the two ends of a pipe: to read from, and to write to."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0) as writer:
        yield reader, writer


async def _drain(pipe: asyncio.StreamReader | None, output: Output) -> None:
    assert pipe is not None
    while piece := await pipe.read(_PIECE):
        output.add(piece)


def _copy_in(files: IO[bytes], pipe: IO[bytes]) -> None:
    with pipe, suppress(BrokenPipeError):
        while piece := files.read(_PIECE):
            view = memoryview(piece)
            while view:
                view = view[pipe.write(view) :]


def _copy_out(pipe: IO[bytes], out: IO[bytes]) -> int | None:
    """Returns the number of bytes; None if there are more than ARCHIVE_BYTES."""
    with pipe:
        size = 0
        while piece := pipe.read(_PIECE):
            if (size := size + len(piece)) > ARCHIVE_BYTES:
                return None
            out.write(piece)
    out.seek(0)
    return size


def _kill_with_children(pid: int) -> None:
    """Kills bwrap, and its child, which does not end with bwrap while it starts: in bwrap's group or in its own."""
    children: list[str] = []
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


async def _end(process: Process, feeding: asyncio.Task[None], taking: asyncio.Task[int | None]) -> int | None:
    """Kills the sandbox if it runs: all that is in it ends with it. Returns what `_copy_out` does."""
    if process.returncode is None:
        _kill_with_children(process.pid)
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        while await pipe.read(_PIECE):  # asyncio waits for the end of the outputs, too
            pass
    await process.wait()
    await feeding
    return await taking
