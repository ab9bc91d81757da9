"""The SSE response: framed bytes from a reader to a client, with as little as possible in between.

A lean subclass of sse-starlette's: no cancel scope a write, no jobs for heartbeats and shutdown (`OpenStreams` has one
ticker for all). A stream that must be cut before its end is cut by aborting the connection: clients take a clean end
for the answer's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from enum import StrEnum

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from backend.api.open_streams import OpenStreams, Seat
from backend.chat.chunks import Data, ErrorChunk, encode
from backend.chat.frames import HEARTBEAT, OPEN
from backend.errors import AppError, StreamCut, TokenExpired
from backend.ids import TaskId

TRANSPORT = "copilot.transport"
"""The ASGI extension by which our server lends its transport, to abort the connection of a stream."""
HANDOVER = "copilot.handover"
"""Where the door finds the stream that a route answered with, to run it when the route's frames are gone."""
_CLOSE_WAIT = 5.0
logger = logging.getLogger(__name__)

Blocks = AsyncGenerator[bytes, None]


class Stop(StrEnum):
    """Why a stream ends before its reader does."""

    GONE = "client is gone"
    DROPPED = "dropped"
    EXPIRED = "token expired"


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


class EventStream(EventSourceResponse):
    """Answers with what `open_blocks` yields. It is called after the first byte was sent, so it may take its time."""

    def __init__(
        self,
        open_blocks: Callable[[], Awaitable[Blocks]],
        *,
        seat: Seat | None,
        open_streams: OpenStreams,
        task_id: TaskId | None = None,
        expires_at: float | None = None,
    ) -> None:
        headers = {"cache-control": "no-cache", "x-vercel-ai-ui-message-stream": "v1"}
        if task_id is not None:
            headers["x-resumable-stream-id"] = task_id
        super().__init__(_nothing(), headers=headers)
        self._open_blocks = open_blocks
        self._seat = seat
        if seat is not None:
            seat.kept = True
        self._open_streams = open_streams
        self.expires_at = expires_at
        self.sending_since: float | None = None
        self.silent_since: float | None = None
        self._send: Send | None = None
        self._beating: asyncio.Task[None] | None = None
        self._limit: asyncio.Timeout | None = None
        self._stop: Stop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            self._give_back()
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif HANDOVER in scope:
            scope[HANDOVER] = self
        else:
            await self.run(scope, receive, send)

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the reader ends, the client goes, or the ticker stops it."""
        self._send = send
        listener = asyncio.create_task(self._listen(receive))
        self._open_streams.add(self)
        try:
            async with asyncio.timeout(None) as self._limit:
                if self._stop is not None:
                    self._limit.reschedule(0)
                await self._pump(send)
        except TimeoutError:
            if self._stop is None:
                raise
        except StreamCut as error:
            logger.warning("stream cut", extra={"why": str(error)})
            self._stop = Stop.DROPPED
        except (AppError, OSError) as error:  # after the first byte there is no other way to say it
            logger.warning("stream failed", extra={"why": repr(error)})
            self._stop = Stop.DROPPED
        finally:
            self._open_streams.discard(self)
            self._give_back()
            self._limit = None
            await _cancel(self._beating)
            try:
                await self._end(scope, send, listener)
            finally:
                await _cancel(listener)

    def _give_back(self) -> None:
        if self._seat is not None:
            self._seat.leave()
            self._seat = None

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": OPEN, "more_body": True})
        now = time.monotonic
        self.silent_since = now()
        async with aclosing(await self._open_blocks()) as blocks:
            async for block in blocks:
                self.sending_since, self.silent_since = now(), None
                await send({"type": "http.response.body", "body": block, "more_body": True})
                self.sending_since, self.silent_since = None, now()
        self.silent_since = None
        await _cancel(self._beating)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stop_for(Stop.GONE)

    # what the ticker calls

    def beat(self) -> None:
        """A comment, so that proxies and clients see that the stream is alive."""
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._send_heartbeat())

    def expire(self) -> None:
        self._stop_for(Stop.EXPIRED)

    def drop(self) -> None:
        self._stop_for(Stop.DROPPED)

    def _stop_for(self, why: Stop) -> None:
        if self._stop is None:
            self._stop = why
            if self._limit is not None and not self._limit.expired():
                self._limit.reschedule(0)

    async def _send_heartbeat(self) -> None:
        assert self._send is not None
        self.sending_since, self.silent_since = time.monotonic(), None
        await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        self.sending_since, self.silent_since = None, time.monotonic()

    # the end

    async def _end(self, scope: Scope, send: Send, listener: asyncio.Task[None]) -> None:
        if self._stop in (None, Stop.GONE):
            return
        transport: asyncio.Transport | None = (scope.get("extensions") or {}).get(TRANSPORT)
        if transport is None:
            raise ConnectionAbortedError(self._stop)  # the server closes a response that fails half-way
        if self._stop is Stop.EXPIRED:
            await self._say_expired(send)
            transport.close()
            await asyncio.wait([listener], timeout=_CLOSE_WAIT)
        transport.abort()
        await asyncio.wait([listener], timeout=_CLOSE_WAIT)

    async def _say_expired(self, send: Send) -> None:
        error = TokenExpired()
        chunks = (Data("error", {"code": error.code, "message": error.detail}), ErrorChunk(error.detail))
        block = b"".join(b"data: " + encode(chunk) + b"\n\n" for chunk in chunks)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_WAIT):
                await send({"type": "http.response.body", "body": block, "more_body": True})


async def _cancel(job: asyncio.Task[None] | None) -> None:
    if job is not None and not job.done():
        job.cancel()
        await asyncio.wait([job])
