"""A web site of this process on a real port, whose pages are bytes that a test writes, with all that may be wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from tests.speed import limit

Page = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def page(body: bytes | str, kind: str | None = "text/html; charset=utf-8", status: int = 200, **headers: str) -> bytes:
    """Returns an answer. The names of headers have `_` for `-`; `length` replaces the true Content-Length."""
    data = body.encode() if isinstance(body, str) else body
    lines = {"content-length": str(len(data)), **({"content-type": kind} if kind is not None else {})}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Any\r\n{head}\r\n".encode("latin-1") + data


def moved(location: str, status: int = 302) -> bytes:
    return page(b"", None, status, location=location)


class Site:
    """`pages` are its answers by path; other paths are 404. `requests` are the heads of all requests."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[str] = []
        self.port = 0
        self.closed = asyncio.Event()
        """Set when a client has closed a connection before its answer has ended."""

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(head)
            path = head.split(" ")[1]
            answer = self.pages.get(path, page("<p>Nothing is here.</p>", status=404))
            if isinstance(answer, bytes):
                writer.write(answer)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
            else:
                try:
                    await answer(writer)
                except ConnectionError:
                    self.closed.set()

    async def until_closed(self) -> None:
        await asyncio.wait_for(self.closed.wait(), limit(20))


def dripping(head: bytes, every: float) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """Returns an answer that sends one byte at a time and has no end."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            if writer.transport.is_closing():
                raise ConnectionError
            await asyncio.sleep(every)

    return drip


@asynccontextmanager
async def site(pages: Mapping[str, Page]) -> AsyncIterator[Site]:
    one = Site()
    one.pages.update(pages)
    jobs: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        jobs.append(asyncio.ensure_future(one.serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        one.port = server.sockets[0].getsockname()[1]
        try:
            yield one
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
