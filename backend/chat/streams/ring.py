"""The ring: the newest entries of one followed stream, shared by all of its readers in this process.

A ring holds a run of entries of ONE attempt without a gap, each framed once. Readers get all other entries by XRANGE.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from backend.chat.models import Task
from backend.chat.protocol.sse_frames import frame_run
from backend.chat.streams.streams import Entry
from backend.ids import BEGINNING, StreamId, TaskId

RING_BATCHES = 128
RING_BYTES = 256 << 10
UNCONFIRMED_LIMIT = 10.0
"""Seconds without a confirmed subscription after which a ring is lost."""


class FramedBatch(NamedTuple):
    """Entries that were written together. `frames` holds all of them, framed, unless one of them is a control entry.

    With a control entry among them, `frames` is empty and `entries` holds all of them.
    """

    first: int
    last: int
    frames: bytes
    entries: tuple[Entry, ...]


class Ring:
    """The newest entries of one followed stream, and what is known of that stream.

    `confirmed` is True while notifications arrive. `lost` means that readers cannot continue. `ended` is the row of a
    task that ended although its stream has no end. `top` is the newest entry that is known. `version` rises with every
    wake-up.
    """

    __slots__ = (
        "_batches",
        "_bytes",
        "_ended_once",
        "_fence",
        "_lasts",
        "_readers",
        "_silent_ticks",
        "_unconfirmed_seconds",
        "_waiters",
        "confirmed",
        "ended",
        "lost",
        "task_id",
        "top",
        "version",
    )

    def __init__(self, task_id: TaskId) -> None:
        self.task_id = task_id
        self.version = 0
        self.confirmed = False
        self.top = BEGINNING
        self.ended: Task | None = None
        self.lost = False
        self._readers = 0
        self._silent_ticks = 0
        self._unconfirmed_seconds = 0.0
        self._ended_once = False
        self._fence = -1
        self._batches: list[FramedBatch] = []
        self._lasts: list[int] = []
        self._bytes = 0
        self._waiters: set[asyncio.Future[None]] = set()

    # --- for readers --------------------------------------------------------------------------------------------------

    @property
    def awaited(self) -> bool:
        """Returns True if a reader waits for news."""
        return bool(self._waiters)

    def join(self) -> None:
        """Counts one more reader."""
        self._readers += 1

    def leave(self) -> bool:
        """Counts one reader less. Returns True if it was the last one."""
        self._readers -= 1
        return not self._readers

    def after(self, position: StreamId) -> Sequence[FramedBatch] | None:
        """Returns the batches after `position`, or () if nothing newer is known.

        Returns None if the ring cannot prove that no entry is missing in between: the reader must ask the stream.
        """
        if position.fence != self._fence or not self._batches:
            return None
        at = bisect_right(self._lasts, position.seq)
        if at == len(self._batches):
            return ()
        if self._batches[at].first != position.seq + 1:
            return None
        return self._batches[at:]

    def saw(self, id: StreamId) -> None:
        """Notes that an entry is known, so that the ticker asks for newer ones only."""
        if id > self.top:
            self.top = id

    async def news(self, since: int) -> None:
        """Returns as soon as `version` is no longer `since`. The hub's ticker bounds the wait."""
        if self.version != since:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    # --- for the hub: notifications and the connection ----------------------------------------------------------------

    def add(self, payload: bytes) -> None:
        """Takes a notification: `<first id> <last id> <bodies joined by newlines>`."""
        try:
            first_id, last_id, body = payload.split(b" ", 2)
            fence, first = map(int, first_id.split(b"-"))
            last = int(last_id.rpartition(b"-")[2])
        except ValueError:
            return self._wake()  # not a notification: readers ask the stream itself
        if fence < self._fence:
            return None  # from an attempt that was replaced
        lasts = self._lasts
        if fence == self._fence and lasts and last <= lasts[-1]:
            return None  # a repeated flush
        bodies = body.split(b"\n")
        if len(bodies) != last - first + 1:
            self._forget()
            return self._wake()
        if fence != self._fence or (lasts and first != lasts[-1] + 1):
            self._forget()
            self._fence = fence
        self._keep(first, last, bodies, has_control=body.startswith(b"!") or b"\n!" in body)
        self.saw(StreamId(fence, last))
        self._silent_ticks = 0
        self._ended_once = False
        self.ended = None
        return self._wake()

    def confirm(self) -> None:
        """Notes that the subscription is confirmed, and wakes the readers."""
        self.confirmed = True
        self._wake()

    def disconnect(self) -> None:
        """Notes that the connection is gone. Readers ask the stream when the subscription is confirmed again."""
        self.confirmed = False
        self._forget()

    def lose(self) -> None:
        """Marks the stream as lost: its readers cannot continue."""
        self.lost = True
        self._wake()

    # --- for the hub: the ticker --------------------------------------------------------------------------------------

    def tick(self, seconds: float) -> None:
        """Counts one more tick of `seconds` without a notification. A ring that stays unconfirmed too long is lost."""
        self._silent_ticks += 1
        self._unconfirmed_seconds = 0.0 if self.confirmed else self._unconfirmed_seconds + seconds
        if self._unconfirmed_seconds > UNCONFIRMED_LIMIT:
            self.lose()

    @property
    def stream_check_due(self) -> bool:
        """Returns True at every 2nd silent tick, while a reader waits and the subscription is confirmed."""
        return self.awaited and self.confirmed and self._silent_ticks >= 2 and self._silent_ticks % 2 == 0

    @property
    def task_check_due(self) -> bool:
        """Returns True at every 3rd silent tick while a reader waits, and at every one after a look-up found an end."""
        return self.awaited and self._silent_ticks >= 3 and (self._silent_ticks % 3 == 0 or self._ended_once)

    @property
    def just_below_top(self) -> StreamId:
        """The id to read after, so that the newest known entry comes again if it is still there."""
        return StreamId(self.top.fence, self.top.seq - 1) if self.top.seq else self.top

    def check_stream(self, top: StreamId, found: Sequence[StreamId]) -> None:
        """Compares the stream with the ring, whose newest entry was `top`. `found` has at most 2 ids, from `top` on."""
        if self.top != top:
            return  # a notification came since
        if not found:
            self.lost = top != BEGINNING  # with the top at the beginning, the stream may not exist yet
        elif len(found) == 1 and found[0] == top:
            self._forget()  # still silent: an idle stream takes no memory
            return
        if found or self.lost:
            self._forget()
            self._wake()

    def check_task(self, row: Task | None) -> None:
        """Takes the task's row, or None if the task was deleted. An end counts after two look-ups have found it."""
        if row is None:
            self.lose()
        elif self._silent_ticks and row.status.ended and self._ended_once:
            self.ended = row
            self._wake()
        else:
            self._ended_once = bool(self._silent_ticks) and row.status.ended

    # --- the run of batches -------------------------------------------------------------------------------------------

    def _keep(self, first: int, last: int, bodies: list[bytes], *, has_control: bool) -> None:
        if has_control:
            entries = tuple(Entry(StreamId(self._fence, seq), body) for seq, body in enumerate(bodies, first))
            self._batches.append(FramedBatch(first, last, b"", entries))
            self._bytes += sum(map(len, bodies))
        else:
            frames = frame_run(self._fence, first, bodies)
            self._batches.append(FramedBatch(first, last, frames, ()))
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

    def _forget(self) -> None:
        """Drops the run: every reader asks the stream next."""
        self._batches.clear()
        self._lasts.clear()
        self._bytes = 0

    def _wake(self) -> None:
        """Lets every waiting reader check again."""
        self.version += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
