"""The bytes of an answer's body as they arrive, with a limit on each silence.

A delta must cost little. The SDK and its HTTP client would pass each piece through seven generators, and a timer for
each read costs as much again. So the bytes are taken from aiohttp's own buffer, and one timer serves all reads of a
body (docs/decisions/0028-what-a-delta-costs.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import httpx2

PIECE = 16_384
"""Most bytes of a piece."""
Read = Callable[[], Awaitable[bytes]]
"""Waits for the next piece of a body. Returns nothing more than b"" after its end."""


def reader_of(response: Any) -> Read:
    """Returns the reader of an open response of an SDK's `with_streaming_response`.

    A compressed body is left to the HTTP client, and so is one of a transport other than the SDKs' aiohttp transport.
    """
    http: httpx2.Response = response.http_response
    if http.headers.get("content-encoding", "identity") == "identity":
        answer = getattr(getattr(http.stream, "_stream", None), "_aiohttp_response", None)
        if isinstance(answer, aiohttp.ClientResponse):
            return partial(answer.content.read, PIECE)
    return read_from(http.aiter_bytes())


def read_from(pieces: AsyncIterator[bytes]) -> Read:
    """Returns a reader of an iterator. Empty pieces are left out, since they would look like the end."""

    async def read() -> bytes:
        async for piece in pieces:
            if piece:
                return piece
        return b""

    return read


class PatientReader:
    """Reads a body; no wait may be longer than a limit. A wait that is not for the server has none.

    One timer looks at the waits of all reads: it is set anew only when it runs out, not by each read. `close` ends it.
    """

    def __init__(self, read: Read, first: float, later: float) -> None:
        self._read = read
        self._limit = first
        self._later: float | None = later
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Task[Any] | None = None
        self._since = 0.0
        self._cancels = 0
        self._too_long = False
        self._timer = self._loop.call_later(first, self._look)

    async def read(self) -> bytes:
        """Returns the next piece, or b"" at the end. Raises TimeoutError after `first` seconds, later after `later`."""
        job = self._waiting = asyncio.current_task(self._loop)
        self._cancels = job.cancelling() if job is not None else 0
        self._since = self._loop.time()
        try:
            piece = await self._read()
        except asyncio.CancelledError:
            if self._too_long and job is not None and job.uncancel() <= self._cancels:
                raise TimeoutError from None
            raise
        finally:
            self._waiting = None
        if self._later is not None:
            self._limit, self._later = self._later, None
            self._timer.cancel()
            self._timer = self._loop.call_later(self._limit, self._look)
        return piece

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        """Ends a wait that is too long by cancelling it, as `asyncio.timeout` does."""
        left = self._limit
        if self._waiting is not None:
            left -= self._loop.time() - self._since
            if left <= 0:
                self._too_long = True
                self._waiting.cancel()
                return
        self._timer = self._loop.call_later(left, self._look)
