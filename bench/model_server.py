"""An OpenAI-compatible server that streams time stamps. Usage: python -m bench.model_server PORT CHUNKS PER_SECOND

Each delta is `T<time.time_ns()> `, so that the receiver can compute its delay. If the request says `/stream N`, the
answer has N deltas, all at once.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import time
from typing import cast

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
_DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"T%d "},"finish_reason":null}]}\n\n'
_END = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
)
_AT_ONCE = re.compile(rb"/stream (\d+)")


class _Model(asyncio.Protocol):
    """A connection whose first complete request is answered. `pause` is the seconds between two deltas."""

    def __init__(self, chunks: int, pause: float) -> None:
        self._left = chunks
        self._pause = pause
        self._read = b""
        self._answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, _, body = self._read.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if not self._answering and b"\r\n\r\n" in self._read and len(body) >= length:
            self._answering = True
            self._transport.write(_HEAD)
            if at_once := _AT_ONCE.findall(body):
                self._transport.write(b"".join(_DELTA % time.time_ns() for _ in range(int(at_once[-1]))) + _END)
                self._transport.close()
                return
            self._next = asyncio.get_running_loop().time() + random.random() * self._pause
            self._wait()

    def _wait(self) -> None:
        self._next += self._pause
        asyncio.get_running_loop().call_at(self._next, self._send)

    def _send(self) -> None:
        if self._transport.is_closing():
            return
        if not self._left:
            self._transport.write(_END)
            self._transport.close()
            return
        self._left -= 1
        self._transport.write(_DELTA % time.time_ns())
        self._wait()


async def serve(port: int, chunks: int, per_second: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: _Model(chunks, 1 / per_second), "127.0.0.1", port, backlog=2048
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
