"""A small HTTP server for a few pages that probes and Prometheus ask for: GET and HEAD, nothing else.

Importing uvicorn and Starlette for them took an eighth of an executor's start. Whatever is odd about a request is
answered once, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

MAX_HEAD_BYTES = 16_384
MOST_CONNECTIONS = 100
HEAD_WITHIN = 5.0
"""Seconds for a request's head to arrive in: since the connection was made, or since the answer before."""
ANSWER_WITHIN = 10.0
_ENDS_WITHIN = 5.0
_METHODS = ("GET", "HEAD")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK


Page = Callable[[], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    stays: bool
    """The client may ask again on the same connection."""

    @classmethod
    def parse(cls, head: bytes) -> _Request:
        """Raises ValueError for what is no HTTP/1 request."""
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ")
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            raise ValueError("not HTTP/1")
        headers = {name.lower(): value.strip().lower() for name, _, value in (line.partition(":") for line in lines)}
        bodiless = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        stays = version == "HTTP/1.1" and "close" not in headers.get("connection", "") and bodiless
        return cls(method, target.partition("?")[0], stays)


@asynccontextmanager
async def serve_pages(listener: socket.socket, pages: Mapping[str, Page]) -> AsyncIterator[None]:
    """Serves the pages, by path, while the block lasts; then answers what was asked already, and stops listening."""
    server = _Server(pages)
    listening = await asyncio.start_server(server.serve, sock=listener, limit=MAX_HEAD_BYTES)
    try:
        yield
    finally:
        listening.close()
        await server.stop()


class _Server:
    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._connections: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[None]] = set()
        self._stopping = False

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes a new connection, unless there are too many."""
        if self._stopping or len(self._connections) >= MOST_CONNECTIONS:
            writer.close()
            return
        job = asyncio.create_task(self._converse(reader, writer), name="health connection")
        self._connections.add(job)
        job.add_done_callback(self._connections.discard)

    async def stop(self) -> None:
        self._stopping = True
        for job in self._idle:
            job.cancel()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=_ENDS_WITHIN)
            for job in late:
                job.cancel()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer_next(reader, writer) and not self._stopping:
                pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client has left, or is too slow
        except Exception:  # the boundary of a connection: the others and the executor go on
            logger.exception("a page failed")
        finally:
            writer.close()

    async def _answer_next(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request. Returns whether another may follow."""
        request: _Request | None = None
        try:
            request = _Request.parse(await self._head(reader))
            answer = await self._answer(request)
        except asyncio.LimitOverrunError:
            answer = _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except ValueError:
            answer = _plain(HTTPStatus.BAD_REQUEST)
        writer.write(_framed(answer, request))
        async with asyncio.timeout(ANSWER_WITHIN):
            await writer.drain()
        return request is not None and request.stays

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        job = asyncio.current_task()
        assert job is not None
        self._idle.add(job)
        try:
            async with asyncio.timeout(HEAD_WITHIN):
                return await reader.readuntil(b"\r\n\r\n")
        finally:
            self._idle.discard(job)

    async def _answer(self, request: _Request) -> Answer:
        page = self._pages.get(request.path)
        if page is None:
            return _plain(HTTPStatus.NOT_FOUND)
        return await page() if request.method in _METHODS else _plain(HTTPStatus.METHOD_NOT_ALLOWED)


def _plain(status: HTTPStatus) -> Answer:
    return Answer(status.phrase.encode(), "text/plain; charset=utf-8", status)


def _framed(answer: Answer, request: _Request | None) -> bytes:
    """The bytes of an answer; `request` is None when it could not be read."""
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"date: {formatdate(usegmt=True)}",
        f"content-type: {answer.content_type}",
        f"content-length: {len(answer.body)}",
        f"connection: {'keep-alive' if request is not None and request.stays else 'close'}",
    ]
    if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append(f"allow: {', '.join(_METHODS)}")
    head = "\r\n".join((*lines, "", "")).encode("latin-1")
    return head if request is not None and request.method == "HEAD" else head + answer.body
