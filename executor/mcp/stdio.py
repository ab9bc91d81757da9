"""An MCP server as a child process: JSON lines over its standard input and output.

The SDK brings such a transport too. This one bounds a line (there, one answer of some hundred megabytes stops the
whole process), ends the server when we are killed, and says why a connection ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from backend.embedded.children import leashed
from executor.mcp.failures import ServerGone
from executor.mcp.servers_file import StdioServer

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_ERROR_LINES, MAX_ERROR_CHARS = 200, 500
STOP_STEPS = ((None, 1.0), (signal.SIGTERM, 1.0), (signal.SIGUSR1, 1.0))
"""What ends a server, and how long each step may take: its input ends, a word, the end."""
_GUARD = Path(__file__).with_name("guard.py")
logger = logging.getLogger(__name__)

Incoming = MemoryObjectSendStream[SessionMessage | Exception]
Outgoing = MemoryObjectReceiveStream[SessionMessage]
Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def run_program(server: StdioServer) -> AsyncIterator[Streams]:
    """The streams of a new process, which is gone when the block is left. Raises ServerGone, in a group, when it ends.

    Its environment is what the SDK lets through (PATH, HOME and the like; nothing of our settings) and what the file
    says.
    """
    secrets = {name: value.get_secret_value() for name, value in server.env.items()}
    process = await asyncio.create_subprocess_exec(
        *leashed([sys.executable, "-I", "-S", _GUARD, server.command, *server.args], death_signal=signal.SIGUSR1),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE if logger.isEnabledFor(logging.DEBUG) else DEVNULL,
        env={**get_default_environment(), **secrets},
        cwd=server.cwd,
        start_new_session=True,
        limit=MAX_MESSAGE_BYTES,
    )
    incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    sent, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_read, process, incoming)
            group.start_soon(_write, process, outgoing)
            group.start_soon(_listen, process, server.name, [*secrets.values(), *server.args])
            try:
                yield received, sent
            finally:
                group.cancel_scope.cancel()  # first: that it ends now is no fault of the program's
                with anyio.CancelScope(shield=True):
                    await _stop(process)
    finally:
        _send(process, signal.SIGUSR1)  # also when we were cancelled twice
        for stream in (incoming, received, sent, outgoing):
            stream.close()


async def _read(process: Process, incoming: Incoming) -> None:
    assert process.stdout is not None
    async with incoming:
        with contextlib.suppress(anyio.BrokenResourceError):  # nobody reads any more: we are leaving
            while line := await _line(process.stdout):
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    continue  # a banner, or a print that was forgotten
                await incoming.send(SessionMessage(message))
    try:
        async with asyncio.timeout(1):
            code = await process.wait()
    except TimeoutError:
        raise ServerGone("it closed its output") from None
    raise ServerGone("its command cannot be run" if code == 127 else f"its program ended with code {code}")


async def _line(output: asyncio.StreamReader) -> bytes:
    try:
        return await output.readline()
    except ValueError:
        raise ServerGone(f"it sent a message over {MAX_MESSAGE_BYTES} bytes") from None


async def _write(process: Process, outgoing: Outgoing) -> None:
    assert process.stdin is not None
    async with outgoing:
        with contextlib.suppress(ConnectionError):  # then its output ends, too
            async for message in outgoing:
                line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(line.encode() + b"\n")
                await process.stdin.drain()


async def _listen(process: Process, name: str, secrets: Sequence[str]) -> None:
    """Its standard error goes to the log at DEBUG: so many lines, each so long, and nothing of the file's secrets."""
    if process.stderr is None:
        return
    lines = 0
    while text := await process.stderr.read(16_384):
        for line in text.decode(errors="replace").splitlines():
            lines += 1
            if lines <= MAX_ERROR_LINES:
                logger.debug("an MCP server says", extra={"server": name, "line": _hidden(line, secrets)})


def _hidden(line: str, secrets: Sequence[str]) -> str:
    for secret in sorted((secret for secret in secrets if len(secret) > 3), key=len, reverse=True):
        line = line.replace(secret, "[hidden]")
    return line[:MAX_ERROR_CHARS]


async def _stop(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    for demand, patience in STOP_STEPS:
        if demand is not None:
            _send(process, demand)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await process.wait()
                await _empty(process)
                return


async def _empty(process: Process) -> None:
    """A pipe is closed when it was read to its end."""
    for output in (process.stdout, process.stderr):
        while output is not None and await output.read(65_536):
            pass


def _send(process: Process, demand: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(demand)
