"""`python -m tests.faults.abusers PORT SESSION SLOW LARGE READERS`: peers that abuse an API until stdin is closed.

SLOW connections send a byte of a head or a body each second, LARGE peers send a body of 3.9 MB (too many values, or
spaces) every 30 s, READERS open a stream of SESSION every 5 s, read its beginning and leave. Prints the number of each
outcome as JSON. It is a process of its own, so that it does not delay the peers that a test measures.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import uvloop

BODY_BYTES = 3_900_000
SLOW_S, LARGE_S, READER_S = 1.0, 30.0, 5.0
"""Seconds between two bytes, between two bodies, and between two connections of a peer."""
_HEAD = "POST /api/chat HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
_BODIES = [
    b'{"id":"aaaaaaaaaaaaaaaaaaaa","messages":[' + b"{}," * (BODY_BYTES // 3),
    b" " * BODY_BYTES,
]


class Abusers:
    def __init__(self, port: int, session: str) -> None:
        self._port = port
        self._session = session
        self.seen: Counter[str] = Counter()

    async def slow(self, number: int) -> None:
        """Holds a connection with the head, or every second time with the body, of a request that never ends."""
        head = _HEAD.format(1000) if number % 2 else "GET /health HTTP/1.1\r\n"
        reader, writer = await self._connect()
        try:
            writer.write(head.encode())
            while not reader.at_eof():
                writer.write(b" " if number % 2 else b"x: y\r\n")
                with suppress(TimeoutError):
                    async with asyncio.timeout(SLOW_S):
                        await reader.read(65_536)
            self.seen["slow closed"] += 1
        finally:
            writer.close()

    async def large(self, number: int) -> None:
        """Sends one large body, and reads what is answered."""
        reader, writer = await self._connect()
        try:
            writer.write(_HEAD.format(BODY_BYTES).encode())
            sending = asyncio.ensure_future(self._send(writer, _BODIES[number % len(_BODIES)]))
            line = await reader.readline()
            sending.cancel()
            self.seen[f"large {line.split()[1].decode() if line else 'closed'}"] += 1
        finally:
            writer.close()
        await asyncio.sleep(LARGE_S)

    async def reader(self, number: int) -> None:
        """Opens a stream, reads its first bytes and leaves without a word."""
        reader, writer = await self._connect()
        try:
            target = f"/api/chat/events?session_id={self._session}"
            writer.write(f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
            line = await reader.readline()
            self.seen[f"reader {line.split()[1].decode() if line else 'closed'}"] += 1
        finally:
            writer.transport.abort()
        await asyncio.sleep(READER_S)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, body: bytes) -> None:
        for place in range(0, len(body), 65_536):
            writer.write(body[place : place + 65_536])
            await writer.drain()


async def repeat(abuse: Any, number: int, seen: Counter[str]) -> None:
    while True:
        try:
            await abuse(number)
        except (OSError, IndexError):
            seen["refused or reset"] += 1
            await asyncio.sleep(READER_S)


async def main(port: int, session: str, *numbers: int) -> None:
    abusers = Abusers(port, session)
    kinds = (abusers.slow, abusers.large, abusers.reader)
    work: list[Coroutine[Any, Any, None]] = [
        repeat(kind, n, abusers.seen) for kind, most in zip(kinds, numbers, strict=True) for n in range(most)
    ]
    jobs = [asyncio.ensure_future(one) for one in work]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for job in jobs:
        job.cancel()
    await asyncio.wait(jobs)
    print(json.dumps(abusers.seen))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])))
