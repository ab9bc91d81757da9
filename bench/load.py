"""A light HTTP client for measuring streams: it uses raw sockets and parses nothing until a stream has ended.

An httpx client needs more CPU per chunk than the server that it should measure.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

LIMIT = 120.0  # seconds
_STAMP = re.compile(rb"T(\d{19}) ")


@dataclass(slots=True)
class Received:
    """The data and times of one stream. Times are `time.perf_counter` seconds; `delays` are seconds."""

    asked_at: float
    first_byte_at: float = 0.0
    first_chunk_at: float = 0.0
    done_at: float = 0.0
    pieces: list[bytes] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def events(self) -> int:
        return self.body.count(b"data: {")

    @property
    def text(self) -> str:
        return b"".join(re.findall(rb'"type":"text-delta","id":"[^"]*","delta":"([^"]*)"', self.body)).decode()


class Stream(asyncio.Protocol):
    """One connection. `done` resolves to what it received, when it is closed."""

    def __init__(self, request: bytes, stamped: bool) -> None:
        self._request = request
        self._stamped = stamped
        self.received = Received(time.perf_counter())
        self.done: asyncio.Future[Received] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.received.asked_at = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        received, now = self.received, time.perf_counter()
        if not received.first_byte_at:
            received.first_byte_at = now
        if not received.first_chunk_at and b'"text-delta"' in data:
            received.first_chunk_at = now
        if self._stamped:
            at = time.time_ns()
            received.delays += [(at - int(stamp)) / 1e9 for stamp in _STAMP.findall(data)]
        else:
            received.pieces.append(data)
        if b"data: [DONE]" in data or b"0\r\n\r\n" in data[-5:]:
            received.done_at = now
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(self.received)


async def open_stream(
    url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None, stamped: bool = False
) -> Stream:
    """Connects and sends a request: a POST of JSON if there is a body, otherwise a GET.

    A `stamped` stream records the delay of each time stamp (see `bench.model_server`) and does not keep its data.
    """
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{'POST' if body is not None else 'GET'} {path} HTTP/1.1", f"host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    request = "\r\n".join([*lines, "", ""]).encode() + (body or b"")
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: Stream(request, stamped), parts.hostname, parts.port)
    return stream


async def receive(
    url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None, stamped: bool = False
) -> Received:
    """Sends a request and reads the stream to its end. Raises TimeoutError after LIMIT seconds."""
    async with asyncio.timeout(LIMIT):
        return await (await open_stream(url, body=body, headers=headers, stamped=stamped)).done


def percentile(values: list[float], percent: float) -> float:
    """Returns the value that `percent` percent of the values do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]


def cpu_seconds(pid: int) -> float:
    """Returns the user and system time of a process so far, in seconds, at 100 clock ticks per second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident_bytes(pid: int) -> int:
    """Returns the resident memory of a process, at 4096 bytes per page."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
