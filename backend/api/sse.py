"""The SSE response, which passes framed bytes from a reader to a client.

It is a lean subclass of sse-starlette's response. It opens no cancel scope for each write, and leaves heartbeats and
shutdown to the one ticker of `OpenStreams`. A stream that must stop before its end aborts the connection, because
clients would take a clean end for the end of the answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from enum import StrEnum
from typing import ClassVar

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from backend.api.open_streams import OpenStreams, StreamSlot, Viewer
from backend.chat.protocol.chunks import Data, ErrorChunk, encode
from backend.chat.protocol.sse_frames import HEARTBEAT, OPEN
from backend.errors import AppError, StreamCut, TokenExpired
from backend.ids import TaskId

TRANSPORT = "copilot.transport"
"""The ASGI extension that holds the connection's transport, so that a stream can abort it."""
HANDOVER = "copilot.handover"
"""The scope key under which a route's stream is handed to RequestMiddleware, which runs it after the route."""
_CLOSE_WAIT_S = 5.0
logger = logging.getLogger(__name__)

Frames = AsyncGenerator[bytes, None]
"""Frames of server-sent events. Each item is one or more whole frames."""


class StopReason(StrEnum):
    """The reasons to end a stream before its reader does."""

    GONE = "client is gone"
    DROPPED = "dropped"
    EXPIRED = "token expired"


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


class EventStream(EventSourceResponse):
    """A response that streams the frames of `open_frames`, which is called after the first byte was sent.

    Takes over `slot` and releases it at the end. A subclass may speak another protocol.
    """

    starts_at_once: ClassVar[bool] = True
    """False if the status is known only at the end (`status_code`)."""
    protocol_headers: ClassVar[Mapping[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}

    def __init__(
        self,
        open_frames: Callable[[], Awaitable[Frames]],
        *,
        slot: StreamSlot | None,
        open_streams: OpenStreams,
        task_id: TaskId | None = None,
        expires_at: float | None = None,
        viewer: Viewer | None = None,
    ) -> None:
        # no-transform: a proxy that compresses would hold the events back until it has a block of them
        headers = {"cache-control": "no-cache, no-transform", **self.protocol_headers}
        if task_id is not None:
            headers["x-resumable-stream-id"] = task_id
        super().__init__(_nothing(), headers=headers)
        self._open_frames = open_frames
        self._slot = slot
        if slot is not None:
            slot.stream = self
        self._open_streams = open_streams
        self.expires_at = expires_at
        self.viewer = viewer
        self.sending_since: float | None = None
        self.silent_since: float | None = None
        self._send: Send | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self._limit: asyncio.Timeout | None = None
        self._stop: StopReason | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            self._release_slot()
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif HANDOVER in scope:
            scope[HANDOVER] = self
        else:
            await self.run(scope, receive, send)

    def on_stop(self) -> None:
        """Is called if the stream stops before its end, for example because the client has disconnected."""

    def expired_frames(self) -> bytes:
        """Returns the last bytes to a client whose token has expired."""
        error = TokenExpired()
        chunks = (Data("error", {"code": error.code, "message": error.detail}), ErrorChunk(error.detail))
        return b"".join(b"data: " + encode(chunk) + b"\n\n" for chunk in chunks)

    def abandon(self) -> None:
        """Gives the slot back, if the stream is never run."""
        self._release_slot()

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the reader ends, the client disconnects, or the ticker stops the stream."""
        self._send = send
        listener = asyncio.create_task(self._listen(receive))
        self._open_streams.add(self)
        whole = False
        try:
            async with asyncio.timeout(None) as self._limit:
                if self._stop is not None:
                    self._limit.reschedule(0)
                await self._pump(send)
                whole = True
        except TimeoutError:
            if self._stop is None:
                raise
        except StreamCut as error:
            logger.warning("stream was cut", extra={"error": str(error)})
            self._stop = StopReason.DROPPED
        except (AppError, OSError) as error:  # after the first byte no error response is possible
            logger.warning("stream failed", extra={"error": repr(error)})
            self._stop = StopReason.DROPPED
        finally:
            self._open_streams.discard(self)
            self._release_slot()
            self._limit = None
            if not whole:
                self.on_stop()
            await _cancel(self._heartbeat)
            try:
                await self._end(scope, send, listener)
            finally:
                await _cancel(listener)

    def _release_slot(self) -> None:
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": OPEN, "more_body": True})
        now = time.monotonic
        self.silent_since = now()
        async with aclosing(await self._open_frames()) as frames:
            async for data in frames:
                self.sending_since, self.silent_since = now(), None
                await send({"type": "http.response.body", "body": data, "more_body": True})
                self.sending_since, self.silent_since = None, now()
        self.silent_since = None
        await _cancel(self._heartbeat)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stop_for(StopReason.GONE)

    # called by the ticker

    def start_heartbeat(self) -> None:
        """Sends an SSE comment in the background, so that proxies and clients see that the stream is alive."""
        if self._heartbeat is None or self._heartbeat.done():
            self._heartbeat = asyncio.create_task(self._send_heartbeat())

    def expire(self) -> None:
        self._stop_for(StopReason.EXPIRED)

    def drop(self) -> None:
        self._stop_for(StopReason.DROPPED)

    def _stop_for(self, reason: StopReason) -> None:
        if self._stop is None:
            self._stop = reason
            if self._limit is not None and not self._limit.expired():
                self._limit.reschedule(0)

    async def _send_heartbeat(self) -> None:
        assert self._send is not None
        self.sending_since, self.silent_since = time.monotonic(), None
        await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        self.sending_since, self.silent_since = None, time.monotonic()

    # the end

    async def _end(self, scope: Scope, send: Send, listener: asyncio.Task[None]) -> None:
        if self._stop in (None, StopReason.GONE):
            return
        transport: asyncio.Transport | None = (scope.get("extensions") or {}).get(TRANSPORT)
        if transport is None:
            raise ConnectionAbortedError(self._stop)  # the server then closes the connection
        if self._stop is StopReason.EXPIRED:
            await self._send_expired(send)
            transport.close()
            await asyncio.wait([listener], timeout=_CLOSE_WAIT_S)
        transport.abort()
        await asyncio.wait([listener], timeout=_CLOSE_WAIT_S)

    async def _send_expired(self, send: Send) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_WAIT_S):
                await send({"type": "http.response.body", "body": self.expired_frames(), "more_body": True})


async def _cancel(job: asyncio.Task[None] | None) -> None:
    if job is not None and not job.done():
        job.cancel()
        await asyncio.wait([job])
