"""An MCP server as a child process that exchanges JSON lines over its standard input and output.

The SDK has such a transport, too, but this one limits the length of a line, ends the server if this process is killed,
and reports why a connection ended. With the SDK's, an answer of some hundred megabytes would block the whole process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, RequestId

from backend.embedded.children import tied_to_parent
from executor.mcp.failures import LastFailure, Reason, ReasonKind, ServerGone, line_for_log
from executor.mcp.messages import OverlongLine, decode, errors_for, read_lines
from executor.mcp.server_entry import StdioServer

PIPE_BYTES = 262_144
EXIT_WAIT = 1.0
"""Seconds that a program has to exit after the end of its output."""
LAST_LINES = 5
"""The number of last lines of standard error that are logged when a program has ended."""
MAX_ERROR_LINES = 200
"""Lines of standard error that are logged per process."""
STOP_STEPS = ((None, 1.0), (signal.SIGTERM, 1.0), (signal.SIGUSR1, 1.0))
"""Signals that stop a server after its input was closed, each with the seconds to wait. The guard kills on SIGUSR1."""
_GUARD = Path(__file__).with_name("guard.py")
logger = logging.getLogger(__name__)

Incoming = MemoryObjectSendStream[SessionMessage | Exception]
Outgoing = MemoryObjectReceiveStream[SessionMessage]
Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def run_program(server: StdioServer, folder: Path, last_failure: LastFailure) -> AsyncIterator[Streams]:
    """Starts the program, yields its streams, and stops it at the end. Raises ServerGone, in a group, if it ends early.

    It works in `folder` unless the file says otherwise. Its environment consists of the variables that the SDK passes
    on (PATH, HOME and similar) and the file's `env`. It gets none of this service's settings.
    """
    environment = {name: value.get_secret_value() for name, value in server.env.items()}
    process = await asyncio.create_subprocess_exec(
        *tied_to_parent(
            [sys.executable, "-I", "-S", _GUARD, _absolute(server.command), *server.args], death_signal=signal.SIGUSR1
        ),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env={**get_default_environment(), **environment},
        cwd=server.cwd or folder,
        start_new_session=True,
        limit=PIPE_BYTES,
    )
    program = _Program(process, server.name, server.hidden_in_log, last_failure)
    incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    sent, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(program.read, incoming)
            group.start_soon(program.write, outgoing)
            group.start_soon(program.listen)
            try:
                yield received, sent
            finally:
                group.cancel_scope.cancel()  # first, so that stopping is not reported as a failure
                with anyio.CancelScope(shield=True):
                    await _stop(process)
    finally:
        _send(process, signal.SIGUSR1)  # even after a second cancel
        for stream in (incoming, received, sent, outgoing):
            stream.close()


def _absolute(command: str) -> str:
    """Returns a command that means the same in another folder."""
    return os.path.abspath(command) if "/" in command else command


class _Program:
    """A running program: the messages in both directions, and its standard error."""

    def __init__(self, process: Process, name: str, secrets: list[str], last_failure: LastFailure) -> None:
        self._process = process
        self._name = name
        self._secrets = secrets
        self._last_failure = last_failure
        self._asked: set[RequestId] = set()
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._heard = anyio.Event()

    async def read(self, incoming: Incoming) -> None:
        """Passes the program's messages on until its output ends. Then notes why, and raises ServerGone."""
        assert self._process.stdout is not None
        async with incoming:
            with contextlib.suppress(anyio.BrokenResourceError):  # the reader has gone, since the block is being left
                async for line in read_lines(self._process.stdout):
                    for message in self._messages(line):
                        await incoming.send(SessionMessage(message))
            words = await self._last_words()  # before `incoming` ends, since that end gives no reason
            self._last_failure.why = Reason(words, ReasonKind.EXITED)
        raise ServerGone(words, ReasonKind.EXITED)

    async def _last_words(self) -> str:
        code: int | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_WAIT):
                code = await self._process.wait()
                await self._heard.wait()
        said = line_for_log(" | ".join(self._last_lines), self._secrets)
        if code is None:
            return "it closed its output"
        if code == 127 and not said:
            return "its command cannot be run"
        return f"its program ended with code {code}" + (f"; its last words: {said}" if said else "")

    def _messages(self, line: bytes | OverlongLine) -> list[JSONRPCMessage]:
        """Returns the messages of a line. There are none in a banner or a forgotten print."""
        messages = errors_for(line, self._asked) if isinstance(line, OverlongLine) else decode(line, self._asked)
        for message in messages:
            if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
                self._asked.discard(message.id)
        return messages

    async def write(self, outgoing: Outgoing) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        async with outgoing:
            with contextlib.suppress(ConnectionError):  # its output ends then, too
                async for message in outgoing:
                    self._note(message.message)
                    line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    if stdin.is_closing():  # the program has ended; uvloop raises RuntimeError for a write
                        return
                    stdin.write(line.encode() + b"\n")
                    await stdin.drain()

    def _note(self, message: JSONRPCMessage) -> None:
        """Keeps the ids of open requests."""
        if isinstance(message, JSONRPCRequest):
            self._asked.add(message.id)
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._asked.discard((message.params or {}).get("requestId", ""))

    async def listen(self) -> None:
        """Keeps the last lines of standard error. Logs MAX_ERROR_LINES of them at DEBUG, without secrets."""
        assert self._process.stderr is not None
        lines = 0
        try:
            async for text in read_lines(self._process.stderr):
                line = line_for_log(
                    (text if isinstance(text, bytes) else text.head).decode(errors="replace"), self._secrets
                )
                if not line:
                    continue
                self._last_lines.append(line)
                lines += 1
                if lines <= MAX_ERROR_LINES:
                    logger.debug("standard error of an MCP server", extra={"server": self._name, "line": line})
        finally:
            self._heard.set()


async def _stop(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    for signal_to_send, seconds in STOP_STEPS:
        if signal_to_send is not None:
            _send(process, signal_to_send)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await process.wait()
                await _empty(process)
                return


async def _empty(process: Process) -> None:
    """Reads the pipes to their ends, since asyncio closes them only then."""
    for output in (process.stdout, process.stderr):
        while output is not None and await output.read(65_536):
            pass


def _send(process: Process, signal_to_send: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal_to_send)
