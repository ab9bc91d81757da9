"""The streams that are open in this process: how many each caller has, and one ticker that looks after them all.

The ticker sends the heartbeats, drops clients that take nothing, and ends streams whose token has expired. One job a
process instead of timers a stream: an idle stream costs its place in a set.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from backend.api.pace import Pace
from backend.errors import TooManyStreams, Unavailable
from backend.standing import start_standing

logger = logging.getLogger(__name__)


class OpenStream(Protocol):
    """What the ticker needs of a stream."""

    expires_at: float | None

    @property
    def silent_since(self) -> float | None:
        """When the last send ended (monotonic); None while one is under way."""

    @property
    def sending_since(self) -> float | None: ...

    def beat(self) -> None: ...
    def expire(self) -> None: ...
    def drop(self) -> None: ...


class Seat:
    """A caller's right to one open stream; given back once, by `leave`. `kept`: a response has it and will."""

    __slots__ = ("_key", "_streams", "kept")

    def __init__(self, streams: OpenStreams, key: str) -> None:
        self._streams: OpenStreams | None = streams
        self._key = key
        self.kept = False

    def leave(self) -> None:
        if self._streams is not None:
            self._streams.release(self._key)
            self._streams = None


class OpenStreams:
    """`async with` it for the life of the process."""

    def __init__(self, per_caller: int, pace: Pace) -> None:
        self._per_caller = per_caller
        self._pace = pace
        self._taken: Counter[str] = Counter()
        self._open: set[OpenStream] = set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenStream]:
        return iter(self._open)

    def take_seat(self, key: str) -> Seat:
        """Raises TooManyStreams when the caller has as many as it may."""
        if self._closing:
            raise Unavailable
        if self._taken[key] >= self._per_caller:
            raise TooManyStreams(f"{self._per_caller} streams are open, which is the limit; close one first.")
        self._taken[key] += 1
        return Seat(self, key)

    def release(self, key: str) -> None:
        self._taken[key] -= 1
        if self._taken[key] <= 0:
            del self._taken[key]

    def add(self, stream: OpenStream) -> None:
        self._open.add(stream)
        if self._closing:
            stream.drop()

    def discard(self, stream: OpenStream) -> None:
        self._open.discard(stream)

    def drop_all(self) -> None:
        """Cuts every stream, by aborting its connection: clients come back, to another process."""
        self._closing = True
        for stream in list(self._open):
            stream.drop()

    @asynccontextmanager
    async def looked_after(self) -> AsyncIterator[OpenStreams]:
        ticker = start_standing(self._tick, "open-streams")
        try:
            yield self
        finally:
            self.drop_all()
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._pace.tick)
            now, wall = time.monotonic(), time.time()
            for stream in list(self._open):
                self._look_after(stream, now, wall)

    def _look_after(self, stream: OpenStream, now: float, wall: float) -> None:
        sending, silent = stream.sending_since, stream.silent_since
        if sending is not None and now - sending >= self._pace.send_timeout:
            logger.info("client took nothing, dropped")
            stream.drop()
        elif stream.expires_at is not None and wall >= stream.expires_at:
            stream.expire()
        elif silent is not None and now - silent >= self._pace.heartbeat_every:
            stream.beat()
