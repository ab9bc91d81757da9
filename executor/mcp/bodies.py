"""Bodies of HTTP answers, so that the SDK reads valid JSON-RPC of bounded size in each of them."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCResponse, RequestId

from executor.mcp.messages import ClientErrorCode, LineBuffer, OverlongLine, decode, errors_for, own_error, too_large

MAX_FIELD = 4_096
"""Bytes of an event's id; a longer one is left out."""
_PIECE_BYTES = 262_144
"""Bytes that are unpacked at once."""


def dumped(message: JSONRPCMessage) -> bytes:
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


def plain_pieces(response: httpx2.Response) -> httpx2.AsyncByteStream:
    """Returns the body without compression, although none was asked for."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    if response.headers.pop("content-encoding", "identity") in ("gzip", "deflate", "x-gzip"):
        return _Unpacked(response.stream)
    return response.stream


class _Unpacked(httpx2.AsyncByteStream):
    """A body that is unpacked piece by piece, so that a small one cannot become a large one in memory."""

    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, whichever it is
        try:
            async for piece in self._body:
                rest = piece
                while rest:
                    yield unpacker.decompress(rest, _PIECE_BYTES)
                    rest = unpacker.unconsumed_tail
        except zlib.error:
            raise httpx2.ReadError("the body cannot be unpacked") from None

    async def aclose(self) -> None:
        await self._body.aclose()


class _Body(httpx2.AsyncByteStream):
    """The body of the answer to request `number`. It ends when `stop` is set, and calls `done` when it is closed."""

    def __init__(
        self, body: httpx2.AsyncByteStream, number: RequestId | None, stop: asyncio.Event, done: Callable[[], None]
    ) -> None:
        self._body = body
        self._number = number
        self._stop = stop
        self._done = done
        self._stopped: asyncio.Future[Any] | None = None

    async def aclose(self) -> None:
        self._done()
        if self._stopped is not None:
            self._stopped.cancel()
        await self._body.aclose()

    async def _pieces(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._body)
        self._stopped = stopped = asyncio.ensure_future(self._stop.wait())
        while True:
            job = asyncio.ensure_future(_next(pieces))
            try:
                await asyncio.wait({job, stopped}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not job.done():
                    job.cancel()
                    await asyncio.wait({job})
            if job.cancelled() or (piece := job.result()) is None:
                return
            yield piece

    def _lost(self) -> list[JSONRPCMessage]:
        return [] if self._number is None else [own_error(self._number, ClientErrorCode.LOST, "the connection broke")]


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


class JsonBody(_Body):
    """One JSON document. The SDK reads a valid answer to the request, even if the server's document is none."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert self._number is not None
        line = LineBuffer()
        try:
            async for piece in self._pieces():
                line.add(piece)
                if line.over:
                    yield dumped(too_large(self._number))
                    return
        except httpx2.TransportError:
            yield dumped(self._lost()[0])
            return
        if self._stop.is_set():
            yield dumped(self._lost()[0])
            return
        text = line.take()
        assert isinstance(text, bytes)
        found = [one for one in decode(text, {self._number}) if isinstance(one, JSONRPCResponse | JSONRPCError)]
        answer = (
            found[0] if found else own_error(self._number, ClientErrorCode.INVALID_ANSWER, "its answer is not valid")
        )
        answer.id = self._number
        yield dumped(answer)


class EventsBody(_Body):
    """Server-sent events. Each is passed on with one line of valid data. Data that is not JSON-RPC is left out."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        event = _Event()
        asked = () if self._number is None else (self._number,)
        async for line in _lines(self._pieces()):
            if line:
                event.add(line)
                continue
            data, event, about = event.data, _Event(), event.about
            if data is None:
                if about:
                    yield about + b"data:\n\n"  # an id alone, from which the SDK resumes
                continue
            messages = errors_for(data, asked) if isinstance(data, OverlongLine) else decode(data, asked)
            yield b"".join(about + b"data: " + dumped(message) + b"\n\n" for message in messages)
        if self._stop.is_set():  # else the SDK would try to resume it
            yield b"".join(b"data: " + dumped(message) + b"\n\n" for message in self._lost())


class _Event:
    def __init__(self) -> None:
        self._data = LineBuffer()
        self._has_data = False
        self._about: dict[bytes, bytes] = {}

    @property
    def about(self) -> bytes:
        """The lines of its last id and its last time to wait, at most 2 * MAX_FIELD characters."""
        return b"".join(name + b": " + value + b"\n" for name, value in self._about.items())

    @property
    def data(self) -> bytes | OverlongLine | None:
        data = self._data.take()
        return data if self._has_data and data != b"" else None

    def add(self, line: bytes | OverlongLine) -> None:
        if isinstance(line, OverlongLine):
            if line.head.startswith(b"data:"):
                self._has_data = True
                self._data.add_long(OverlongLine(line.head.removeprefix(b"data:"), line.tail))
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if self._has_data:
                self._data.add(b"\n")
            self._has_data = True
            self._data.add(value)
        elif name in (b"id", b"retry") and len(value) <= MAX_FIELD:
            self._about[name] = value


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes | OverlongLine]:
    """Yields lines that end with CR LF, LF or CR."""
    line, held = LineBuffer(), b""
    async for piece in pieces:
        text = held + piece
        held = b"\r" if text.endswith(b"\r") else b""
        *ends, rest = _unified(text.removesuffix(held)).split(b"\n")
        for end in ends:
            line.add(end)
            yield line.take()
        line.add(rest)
    last = line.take()
    if isinstance(last, bytes) and last.rstrip().endswith(b"}"):  # a server that leaves out the last empty line
        yield last
        yield b""


def _unified(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text
