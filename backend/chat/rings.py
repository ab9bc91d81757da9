"""The ring: the newest entries of one followed stream, framed once, shared by all of its readers in this process.

It is a run without gaps inside ONE attempt. Whatever is not in it a reader gets by XRANGE.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from backend.chat.frames import frame_run
from backend.chat.models import Task
from backend.chat.streams import Entry
from backend.ids import BEGINNING, StreamId, TaskId

RING_BATCHES = 128
RING_BYTES = 256 << 10


class Batch(NamedTuple):
    """Entries that were written together. `frames` is all of them, framed; control entries are in `entries` only."""

    first: int
    last: int
    frames: bytes
    entries: tuple[Entry, ...]


class Ring:
    """The newest entries of one followed stream, shared by its readers."""

    __slots__ = (
        "_batches",
        "_bytes",
        "_fence",
        "_lasts",
        "_waiters",
        "confirmed",
        "doubt",
        "ended",
        "lost",
        "readers",
        "silent",
        "task_id",
        "top",
        "unconfirmed",
        "version",
    )

    def __init__(self, task_id: TaskId) -> None:
        self.task_id = task_id
        self.readers = 0
        self.version = 0
        self.confirmed = False
        self.unconfirmed = 0.0
        self.silent = 0
        self.top = BEGINNING
        self.doubt = False
        self.ended: Task | None = None
        self.lost = False
        self._fence = -1
        self._batches: list[Batch] = []
        self._lasts: list[int] = []
        self._bytes = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def awaited(self) -> bool:
        """Somebody waits for news."""
        return bool(self._waiters)

    def after(self, position: StreamId) -> Sequence[Batch] | None:
        """What follows `position`, as far as it is known. None: not proven to be without a gap, ask the stream."""
        if position.fence != self._fence or not self._batches:
            return None
        at = bisect_right(self._lasts, position.seq)
        if at == len(self._batches):
            return ()
        if self._batches[at].first != position.seq + 1:
            return None
        return self._batches[at:]

    def saw(self, id: StreamId) -> None:
        """A reader knows of this entry: the ticker asks for newer ones only."""
        if id > self.top:
            self.top = id

    def add(self, payload: bytes) -> None:
        """Takes a notification: `<first id> <last id> <bodies joined by newlines>`."""
        try:
            first_id, last_id, body = payload.split(b" ", 2)
            fence, first = map(int, first_id.split(b"-"))
            last = int(last_id.rpartition(b"-")[2])
        except ValueError:
            return self.wake()  # not ours: look at the stream itself
        if fence < self._fence:
            return None  # a zombie's
        lasts = self._lasts
        if fence == self._fence and lasts and last <= lasts[-1]:
            return None  # a repeated flush
        bodies = body.split(b"\n")
        if len(bodies) != last - first + 1:
            self.forget()
            return self.wake()
        if fence != self._fence or (lasts and first != lasts[-1] + 1):
            self.forget()
            self._fence = fence
        self._keep(first, last, bodies, has_control=body.startswith(b"!") or b"\n!" in body)
        self.saw(StreamId(fence, last))
        self.silent = 0
        self.doubt = False
        self.ended = None
        return self.wake()

    def _keep(self, first: int, last: int, bodies: list[bytes], *, has_control: bool) -> None:
        if has_control:
            entries = tuple(Entry(StreamId(self._fence, seq), body) for seq, body in enumerate(bodies, first))
            self._batches.append(Batch(first, last, b"", entries))
            self._bytes += sum(map(len, bodies))
        else:
            frames = frame_run(self._fence, first, bodies)
            self._batches.append(Batch(first, last, frames, ()))
            self._bytes += len(frames)
        self._lasts.append(last)
        if len(self._batches) > RING_BATCHES or self._bytes > RING_BYTES:
            self._drop_older_half()

    def _drop_older_half(self) -> None:
        half = len(self._batches) // 2
        for batch in self._batches[:half]:
            self._bytes -= len(batch.frames) + sum(len(entry.body) for entry in batch.entries)
        del self._batches[:half]
        del self._lasts[:half]

    def forget(self) -> None:
        """Drops the run: every reader asks the stream next."""
        self._batches.clear()
        self._lasts.clear()
        self._bytes = 0

    def wake(self) -> None:
        """Every waiting reader looks again."""
        self.version += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def news(self, since: int) -> None:
        """Waits until something happened after `version` was `since`. The hub's ticker bounds the wait."""
        if self.version != since:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
