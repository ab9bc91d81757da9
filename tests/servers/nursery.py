"""Starts our processes quickly: forks them from one that has imported everything.

`python -m tests.servers.nursery FD` is that process, and `start` asks it for children over the socket FD. A child does
what `python -m PROGRAM` does, except for the interpreter's start and the imports, which are two thirds of the CPU until
it is ready; a run of all tests starts four hundred. tests/e2e/test_up.py and tests/integration/test_starting.py start
the real commands, and so does `make faults`.
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
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
_IMPORTED = ("backend.api.server", "executor.process", "backend.chat.rabbit_turns", "backend.chat.results", "jwt")
_MOST_BYTES = 1 << 20


class Process(Protocol):
    """The part of a process that tests use, started either way."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def send_signal(self, signal: int, /) -> None: ...
    def kill(self) -> None: ...


class _Forked:
    """A child of the nursery."""

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
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Nursery:
    """The process that forks, seen from the tests. It ends, with all children, when the connection to it does."""

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
        self._listening = asyncio.create_task(self._listen(reader), name="nursery")
        return self._writer

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        children: dict[int, _Forked] = {}
        while line := await reader.readline():
            told = json.loads(line)
            if "code" in told:
                children.pop(told["pid"]).code.set_result(told["code"])
            else:
                children[told["pid"]] = child = _Forked(told["pid"])
                if (answer := self._asked.pop(0)).cancelled():
                    child.kill()  # whoever asked has gone
                else:
                    answer.set_result(child)
        for answer in (one for one in self._asked if not one.done()):
            answer.set_exception(RuntimeError("the nursery has ended"))
        for child in children.values():
            child.code.set_result(-signal.SIGKILL)

    async def close(self) -> None:
        if self._writer is not None and self._listening is not None:
            self._writer.close()
            await self._listening
            await self._process.wait()


_offered: list[_Nursery] = []


@asynccontextmanager
async def nursery() -> AsyncIterator[None]:
    """While the block lasts, `start` forks."""
    _offered.append(_Nursery())
    try:
        yield
    finally:
        await _offered.pop().close()


async def start(program: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path) -> Process:
    """Starts `python -m PROGRAM` with that environment alone; what it prints goes into the log."""
    if _offered:
        return await _offered[-1].fork(program=list(program), cwd=str(cwd), environment=dict(environment), log=str(log))
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", *program, cwd=cwd, env=environment, stdout=output, stderr=output
        )


# The process that forks.


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Forks a child for each line that comes, and says when one has ended. Returns what a child is to do in the child,
    and None when the other side is gone."""
    waiting = dict[int, int]()
    try:
        return _fork_on_demand(channel, waiting)
    except OSError:  # it has gone without having read all
        pass
    for pid in waiting.values():
        os.kill(pid, signal.SIGKILL)
    return None


def _fork_on_demand(channel: socket.socket, waiting: dict[int, int]) -> dict[str, Any]:
    """Returns in a child alone. Raises OSError when the other side is gone; `waiting` has the children, by pidfd."""
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


def _line(**told: int) -> bytes:
    return json.dumps(told).encode() + b"\n"


def _become(program: Sequence[str], cwd: str, environment: Mapping[str, str], log: str) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
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
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the test run's; it ends the children, too
    if (wanted := _serve(channel)) is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _become(**wanted)


if __name__ == "__main__":
    main()
