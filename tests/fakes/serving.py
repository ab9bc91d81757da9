"""A small HTTP/1.1 server on a raw socket. Unlike a framework's server, it can break off in the middle of a chunk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: int

    def json(self) -> Any:
        return json.loads(self.body)


class CutError(Exception):
    """The connection was cut on purpose."""


class Exchange:
    """One request and its answer."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self._writer = writer

    async def answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        await self.answer_text(status, "application/json", json.dumps(document), headers)

    async def answer_text(self, status: int, kind: str, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        lines = {"content-type": kind, "content-length": str(len(body)), **(headers or {})}
        self._head(status, lines)
        self._writer.write(body)
        await self._writer.drain()

    async def begin_stream(self) -> None:
        self._head(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})
        await self._writer.drain()

    async def send(self, data: bytes) -> None:
        if data:
            self._writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await self._writer.drain()

    async def end_stream(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def cut(self) -> None:
        """Breaks the connection with the body unfinished. All bytes sent before arrive."""
        self._writer.write(b"400\r\nhalf of a chu")
        await self._writer.drain()
        self._writer.close()
        raise CutError

    async def hang_up(self) -> None:
        self._writer.close()
        raise CutError

    def _head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Fake", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self._writer.write("\r\n".join(lines).encode())


Handler = Callable[[Exchange], Awaitable[None]]


async def converse(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers the requests of one connection, until the other side ends it."""
    peer: int = writer.get_extra_info("peername")[1]
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            await handler(Exchange(Request(method, path, headers, body, peer), writer))
    except (asyncio.IncompleteReadError, ConnectionError, CutError):
        pass
    finally:
        writer.close()


async def serve(handler: Handler, port: int) -> None:
    """Serves until it is killed. Prints `listening on PORT` when it is ready; 0 chooses a free port."""
    server = await asyncio.start_server(
        lambda reader, writer: converse(handler, reader, writer), "127.0.0.1", port, limit=64 * 1024 * 1024
    )
    print("listening on", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(handler: Handler) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(handler, int(sys.argv[1]) if len(sys.argv) > 1 else 0))
