"""Starts API and executor processes quickly, by forking them from a process that has imported everything.

`python -m tests.servers.fork_server FD` is that process, the fork server. `start` asks it for children over the socket
FD. A child does what `python -m PROGRAM` does, without the interpreter's start and the imports. These are two thirds of
the CPU time of a start, and a run of all tests starts four hundred processes. tests/e2e/test_up.py,
tests/integration/test_starting.py and `make faults` start the real commands.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from tests import ROOT

_IMPORTED = (
    "backend.api.server",
    "executor.process",
    "backend.chat.queue.rabbitmq",
    "backend.chat.flows.results",
    "backend.command_line",
    "backend.operating.dead_letter_acts",
    "backend.operating.task_acts",
    "examples.agent_generator.app",
    "jwt",
    "dotenv",
)
_MOST_BYTES = 1 << 20


class Process(Protocol):
    """The interface of a started process that tests use, whether it was forked or not."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def send_signal(self, signal: int, /) -> None: ...
    def kill(self) -> None: ...


class _Forked:
    """A child of the fork server."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def returncode(self) -> int | None:
        return self.code.result() if self.code.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self.code)

    def send_signal(self, number: int, /) -> None:
        if not self.code.done():
            with suppress(ProcessLookupError):  # it has ended, and the report of that is on its way
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _ForkServer:
    """The connection of the tests to the fork server, which ends with all its children when the connection ends."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._asked: list[asyncio.Future[_Forked]] = []
        self._listening: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    async def fork(self, **wanted: Any) -> _Forked:
        async with self._starting:
            writer = self._writer or await self._connect()
            answer = asyncio.get_running_loop().create_future()
            self._asked.append(answer)
            writer.write(json.dumps(wanted).encode() + b"\n")
            await writer.drain()
        return await answer

    async def _connect(self) -> asyncio.StreamWriter:
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            command = (sys.executable, "-m", __name__, str(fd))
            self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, pass_fds=[fd])
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._listening = asyncio.create_task(self._listen(reader), name="fork server")
        return self._writer

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        children: dict[int, _Forked] = {}
        while line := await reader.readline():
            report = json.loads(line)
            if "code" in report:
                children.pop(report["pid"]).code.set_result(report["code"])
            else:
                children[report["pid"]] = child = _Forked(report["pid"])
                if (answer := self._asked.pop(0)).cancelled():
                    child.kill()  # the caller of `start` was cancelled
                else:
                    answer.set_result(child)
        for answer in (one for one in self._asked if not one.done()):
            answer.set_exception(RuntimeError("the fork server has ended"))
        for child in children.values():
            child.code.set_result(-signal.SIGKILL)

    async def close(self) -> None:
        if self._writer is not None and self._listening is not None:
            self._writer.close()
            await self._listening
            await self._process.wait()


_active: list[_ForkServer] = []


@asynccontextmanager
async def fork_server() -> AsyncIterator[None]:
    """Makes `start` fork processes while the block lasts."""
    _active.append(_ForkServer())
    try:
        yield
    finally:
        await _active.pop().close()


async def start(
    program: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path, errors: Path | None = None
) -> Process:
    """Starts `python -m PROGRAM` with that environment alone and its output in the log. Its standard error is in
    `errors` if given, and its standard input is empty. With LD_PRELOAD or several folders in PYTHONPATH it is a new
    process, since only such a one reads them."""
    read_at_start = "LD_PRELOAD" in environment or os.pathsep in environment.get("PYTHONPATH", "")
    if not _active or read_at_start:
        return await start_command(program, cwd=cwd, environment=environment, log=log, errors=errors)
    return await _active[-1].fork(
        program=list(program), cwd=str(cwd), environment=dict(environment), log=str(log), errors=str(errors or log)
    )


async def start_command(
    program: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path, errors: Path | None = None
) -> asyncio.subprocess.Process:
    """Does the same without the fork server."""
    for file in (log, errors or log):
        file.write_bytes(b"")
    with log.open("ab") as output, (errors or log).open("ab") as complaints:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *program),
            cwd=cwd, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=complaints,
        )  # fmt: skip


# The code of the fork server itself follows.


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Forks a child for each line that arrives, and reports when one has ended. In a child, returns the arguments of
    `_become`. In the fork server, returns None when the other side has closed the connection."""
    waiting = dict[int, int]()
    try:
        return _fork_on_demand(channel, waiting)
    except OSError:  # the other side closed the connection, perhaps without reading every report
        pass
    for pid in waiting.values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return None


def _fork_on_demand(channel: socket.socket, waiting: dict[int, int]) -> dict[str, Any]:
    """Returns only in a child. Raises OSError when the other side has closed the connection. `waiting` holds the pids
    of the children by pidfd."""
    lines, poll = b"", select.poll()
    poll.register(channel, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd in waiting:
                _, status = os.waitpid(pid := waiting.pop(fd), 0)
                poll.unregister(fd)
                os.close(fd)
                channel.sendall(_line(pid=pid, code=os.waitstatus_to_exitcode(status)))
                continue
            data = channel.recv(_MOST_BYTES)
            if not data:
                raise ConnectionResetError
            *whole, lines = (lines + data).split(b"\n")
            for line in whole:
                pid = os.fork()
                if pid == 0:
                    for other in waiting:
                        os.close(other)
                    channel.close()
                    wanted: dict[str, Any] = json.loads(line)
                    return wanted
                child = os.pidfd_open(pid)
                waiting[child] = pid
                poll.register(child, select.POLLIN)
                channel.sendall(_line(pid=pid))


def _line(**report: int) -> bytes:
    return json.dumps(report).encode() + b"\n"


def _become(program: Sequence[str], cwd: str, environment: Mapping[str, str], log: str, errors: str) -> None:
    for stream, file in enumerate((os.devnull, log, errors)):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC if stream else os.O_RDONLY
        opened = os.open(file, flags, 0o644)
        os.dup2(opened, stream)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    faulthandler.enable()
    sys.argv[1:] = program[1:]
    runpy.run_module(program[0], run_name="__main__", alter_sys=True)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    for name in _IMPORTED:
        importlib.import_module(name)
    importlib.import_module("executor.tools").built_in_documentation()  # or each executor would read it
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test run, which then ends the children
    if (wanted := _serve(channel)) is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _become(**wanted)


if __name__ == "__main__":
    main()
