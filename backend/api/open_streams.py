"""The open streams of this process: the number that each caller has, and one ticker for all of them.

The ticker sends heartbeats, drops clients that read nothing, and ends streams whose token has expired. One job for the
whole process replaces timers for each stream, so an idle stream costs no more than an entry in a set.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from backend.api.timeouts import Timeouts
from backend.errors import TooManyStreams, Unavailable
from backend.ids import SessionId, UserId
from backend.supervised import start_supervised

TAKEOVERS_PER_SLOT = 4
TAKEOVER_WINDOW_S = 10.0
"""Seconds in which a caller's new streams may replace older ones at most TAKEOVERS_PER_SLOT times per slot."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Viewer:
    """The reader of a stream that shows one session. `user_id` is None if the reader is anonymous."""

    session_id: SessionId
    user_id: UserId | None


class OpenStream(Protocol):
    """The interface of a stream towards the ticker. Times are monotonic seconds, except `expires_at`, a Unix time.

    `viewer` is None if the stream shows no single session, or if a service reads it, which may access any session.
    """

    expires_at: float | None
    viewer: Viewer | None

    @property
    def silent_since(self) -> float | None:
        """The end of the last send, or None while a send is under way."""

    @property
    def sending_since(self) -> float | None:
        """The start of the current send, or None if there is none."""

    def start_heartbeat(self) -> None: ...
    def expire(self) -> None: ...
    def drop(self) -> None: ...


class StreamSlot:
    """A caller's right to one open stream. `release` gives it back; a second call does nothing.

    `subject` names what is read. `stream` is the EventStream that has taken the slot over and releases it.
    """

    __slots__ = ("_key", "_streams", "stream", "subject")

    def __init__(self, streams: OpenStreams, key: str, subject: str | None) -> None:
        self._streams: OpenStreams | None = streams
        self._key = key
        self.subject = subject
        self.stream: OpenStream | None = None

    def release(self) -> None:
        if self._streams is not None:
            self._streams.release(self._key, self)
            self._streams = None


class _Slots:
    """The slots of one caller, oldest first, and when the last of them were taken from an older stream."""

    __slots__ = ("taken", "takeovers")

    def __init__(self, per_caller: int) -> None:
        self.taken: list[StreamSlot] = []
        self.takeovers: deque[float] = deque(maxlen=per_caller * TAKEOVERS_PER_SLOT)

    def take_oldest(self, subject: str | None) -> bool:
        """Frees the slot of the oldest stream of this subject. Returns False if there is none.

        Also returns False after too many takeovers in a short time. Otherwise a caller with more open pages than slots
        would see them cut each other off without end.
        """
        now, last = time.monotonic(), self.takeovers
        if len(last) == last.maxlen and now - last[0] < TAKEOVER_WINDOW_S:
            return False
        for slot in self.taken:
            if slot.stream is not None and slot.subject == subject and subject is not None:
                last.append(now)
                slot.release()
                slot.stream.drop()
                return True
        return False


class OpenStreams:
    """The registry of open streams. `supervised` runs its ticker. `per_caller` limits the streams of each quota key."""

    def __init__(self, per_caller: int, timeouts: Timeouts) -> None:
        self._per_caller = per_caller
        self._timeouts = timeouts
        self._callers: dict[str, _Slots] = {}
        self._open: set[OpenStream] = set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenStream]:
        return iter(self._open)

    def acquire_slot(self, key: str, subject: str | None = None) -> StreamSlot:
        """Takes one of the caller's slots. If all are taken, cuts the caller's oldest stream of the same `subject`.

        That stream is most likely one whose client has left: behind many proxies the server notices this only at the
        second heartbeat. A page that still reads it connects again. Raises TooManyStreams, and Unavailable after
        `drop_all`.
        """
        if self._closing:
            raise Unavailable
        caller = self._callers.get(key) or _Slots(self._per_caller)
        if len(caller.taken) >= self._per_caller and not caller.take_oldest(subject):
            raise TooManyStreams(f"{self._per_caller} streams are open, which is the limit; close one first.")
        self._callers[key] = caller
        slot = StreamSlot(self, key, subject)
        caller.taken.append(slot)
        return slot

    def release(self, key: str, slot: StreamSlot) -> None:
        caller = self._callers[key]
        caller.taken.remove(slot)
        if not caller.taken:
            del self._callers[key]

    def add(self, stream: OpenStream) -> None:
        self._open.add(stream)
        if self._closing:
            stream.drop()

    def discard(self, stream: OpenStream) -> None:
        self._open.discard(stream)

    def drop_foreign(self, owners: Mapping[SessionId, UserId]) -> int:
        """Aborts each stream of these sessions whose reader is not the session's owner. Returns their number."""
        foreign = [
            stream
            for stream in self._open
            if (viewer := stream.viewer) is not None and owners.get(viewer.session_id) not in (None, viewer.user_id)
        ]
        for stream in foreign:
            stream.drop()
        return len(foreign)

    def drop_all(self) -> None:
        """Aborts all streams, so that clients reconnect to another process, and refuses new streams."""
        self._closing = True
        for stream in list(self._open):
            stream.drop()

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[OpenStreams]:
        """Runs the ticker, and drops all streams on exit."""
        ticker = start_supervised(self._tick, "open-streams")
        try:
            yield self
        finally:
            self.drop_all()
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._timeouts.tick)
            now, wall = time.monotonic(), time.time()
            for stream in list(self._open):
                self._check(stream, now, wall)

    def _check(self, stream: OpenStream, now: float, wall: float) -> None:
        sending, silent = stream.sending_since, stream.silent_since
        if sending is not None and now - sending >= self._timeouts.send_timeout:
            logger.info("client was dropped because it read nothing")
            stream.drop()
        elif stream.expires_at is not None and wall >= stream.expires_at:
            stream.expire()
        elif silent is not None and now - silent >= self._timeouts.heartbeat_every:
            stream.start_heartbeat()
