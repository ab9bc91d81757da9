"""Writing chunks to streams: one flush in flight per process.

Each writer keeps a buffer; the flusher takes every buffer that has something, sends all in one round trip, and while
that is on its way new chunks gather and neighbouring deltas of one part merge. So the first chunk leaves at once, the
rate never outruns the round trip, and nothing waits on a timer.

A batch gets its ids and bytes once, before its first send; a retry sends the same ones (`scripts/append.lua` makes
that harmless). A stream has at most one batch on its way; a batch that failed goes again with the others' next ones.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from redis.asyncio import Redis

from backend.chat.buffers import ChunkBuffer
from backend.chat.chunks import Chunk
from backend.chat.scripts import Appended, Batch, append
from backend.errors import Fenced, StreamGone, StreamUnavailable
from backend.failpoints import reach
from backend.ids import StreamId

BUFFER_CAP = 1 << 20
"""What a writer holds, as `ChunkBuffer.size` counts, before `append` suspends."""
ROUND_CAP = 8 << 20
DEADLINE = 10.0
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5

log = logging.getLogger(__name__)


class _Flight:
    """A batch that is not acknowledged yet."""

    __slots__ = ("batch", "due", "gives_up_at", "tries", "writer")

    def __init__(self, writer: StreamWriter, batch: Batch, gives_up_at: float) -> None:
        self.writer = writer
        self.batch = batch
        self.gives_up_at = gives_up_at
        self.due = 0.0
        self.tries = 0

    def give_up(self, now: float) -> bool:
        """A try has failed. False: it goes again, at `due`. (A process that was frozen past the end tries twice.)"""
        self.tries += 1
        if now >= self.gives_up_at and self.tries > 1:
            return True
        pause = min(FIRST_PAUSE * 2 ** min(self.tries, 10), LONGEST_PAUSE)
        self.due = now + pause * random.uniform(0.5, 1.0)  # noqa: S311  jitter
        return False


class StreamWriter:
    """The one writer of an attempt: its chunks enter the stream in the order of `append`, each exactly once.

    After any of Fenced, StreamGone and StreamUnavailable it never writes again, and every call raises the same.
    """

    def __init__(self, flusher: Flusher, key: str, fence: int, *, next_seq: int, create: bool) -> None:
        self.key = key
        self.fence = fence
        self._flusher = flusher
        self._create = create
        self._next_seq = next_seq
        self._last = StreamId(fence, next_seq - 1)
        self._buffer = ChunkBuffer()
        self._flight: _Flight | None = None
        self._known = False
        self._failure: Exception | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def last(self) -> StreamId:
        """The id of the newest entry that Redis has acknowledged; seq 0 before the first."""
        return self._last

    async def append(self, *chunks: Chunk) -> None:
        """Buffers the chunks; suspends only while the buffer is full, and takes nothing if it is cancelled then.

        Raises Fenced, StreamGone or StreamUnavailable, also for chunks of earlier calls; ValueError or TypeError for a
        chunk that JSON cannot say (the chunks before it are taken, the writer goes on).
        """
        if self._failure is not None or self._buffer.size >= BUFFER_CAP:
            await self._room()
        try:
            for chunk in chunks:
                self._buffer.add(chunk)
        finally:
            if not self._known:
                self._wake()

    async def control(self, entry: bytes) -> None:
        """Buffers a control entry, as `append` does a chunk."""
        if b"\n" in entry:
            raise ValueError("an entry is one line")
        await self._room()
        self._buffer.add_entry(entry)
        self._wake()

    async def drain(self) -> StreamId:
        """Waits until Redis has acknowledged all that was appended; the id of the last entry. Raises as append."""
        while self._failure is None and (self._buffer or self._flight is not None):
            await self._settled()
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        return self._last

    def _wake(self) -> None:
        if not self._known and self._buffer:
            self._known = True
            self._flusher.mark(self)

    async def _room(self) -> None:
        while self._failure is None and self._buffer.size >= BUFFER_CAP:
            await self._settled()
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    async def _settled(self) -> None:
        """Waits for the next acknowledgement or failure."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            with suppress(ValueError):
                self._waiters.remove(waiter)

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- for the flusher ------------------------------------------------------------------------------------------

    def take_off(self, now: float, deadline: float) -> _Flight | None:
        """The batch to send next: the one that is not acknowledged, else a new one; None when there is none."""
        if self._flight is None and self._buffer:
            try:
                bodies = self._buffer.take()
            except (TypeError, ValueError) as error:  # a delta that is no text: this writer's fault and loss alone
                self.fail(error)
                return None
            batch = Batch(self.key, self.fence, self._next_seq, bodies, self._create)
            self._next_seq += len(bodies)
            self._flight = _Flight(self, batch, now + deadline)
        return self._flight

    def land(self) -> bool:
        """The batch is in the stream. True when there is more to send."""
        if self._flight is not None:
            self._last = StreamId(self.fence, self._flight.batch.last)
            self._flight = None
            self._create = False
        self._known = bool(self._buffer)
        self._release()
        return self._known

    def fail(self, failure: Exception) -> None:
        if self._failure is None:
            self._failure = failure
        self._flight = None
        self._buffer.clear()
        self._known = True  # never again in the flusher
        self._release()


class Flusher:
    """The one job of a process that sends what its writers hold. `async with Flusher(redis, ttl=...) as flusher:`

    A batch that Redis does not take (away, loading, read-only, out of memory ...) is sent again until `deadline`
    seconds after its first try; then its writer fails with StreamUnavailable. What is not drained when the flusher is
    left is lost.
    """

    def __init__(self, redis: Redis, *, ttl: int, deadline: float = DEADLINE) -> None:
        self._redis = redis
        self._ttl = ttl
        self._deadline = deadline
        self._ready: dict[StreamWriter, None] = {}
        self._flying: list[_Flight] = []
        self._wake = asyncio.Event()
        self._job: asyncio.Task[None] | None = None
        self._closed = False
        self._troubled: set[StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._job = asyncio.create_task(self._run(), name="flusher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True  # a cancel can get lost in redis-py's wait_for (before Python 3.12)
        if self._job is not None:
            self._job.cancel()
            await asyncio.wait({self._job})
        self._close()

    def writer(self, key: str, fence: int, *, next_seq: int = 1, create: bool) -> StreamWriter:
        """A writer of `<fence>-<next_seq>` and on. `create`: its first batch makes the stream if it is missing."""
        return StreamWriter(self, key, fence, next_seq=next_seq, create=create)

    def mark(self, writer: StreamWriter) -> None:
        """The writer has something to send."""
        if self._closed:
            writer.fail(StreamUnavailable("the flusher is closed"))
            return
        self._ready[writer] = None
        self._wake.set()

    async def _run(self) -> None:
        try:
            while not self._closed:
                self._wake.clear()
                pause = self._fill()
                if self._flying:
                    await self._flush()
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        finally:
            self._close()

    def _close(self) -> None:
        self._closed = True
        for writer in [*self._ready, *(flight.writer for flight in self._flying)]:
            writer.fail(StreamUnavailable("the flusher is closed"))
        self._ready.clear()
        self._flying.clear()

    def _fill(self) -> float | None:
        """Takes what may go now into the next round; how long until something else may go, None: nothing waits."""
        now, size, soonest = asyncio.get_running_loop().time(), 0, None
        for writer in list(self._ready):
            flight = writer.take_off(now, self._deadline)
            if flight is not None and flight.due > now:
                soonest = flight.due if soonest is None else min(soonest, flight.due)
                continue
            if flight is not None and size >= ROUND_CAP:
                break
            del self._ready[writer]
            if flight is not None:
                self._flying.append(flight)
                size += flight.batch.size
        return None if soonest is None else soonest - now

    async def _flush(self) -> None:
        batches = [flight.batch for flight in self._flying]
        outcomes: Sequence[Appended | Exception]
        try:
            async with asyncio.timeout(self._deadline / 2):
                outcomes = await append(self._redis, batches, self._ttl)
            reach("mid_chunk")
        except Exception as error:  # noqa: BLE001  the flusher's boundary: whatever it was, the round is tried again
            outcomes = [error] * len(batches)
        flying, self._flying = self._flying, []
        now = asyncio.get_running_loop().time()
        for flight, outcome in zip(flying, outcomes, strict=True):
            self._settle(flight, outcome, now)

    def _settle(self, flight: _Flight, outcome: Appended | Exception, now: float) -> None:
        writer = flight.writer
        if isinstance(outcome, Exception) and not flight.give_up(now):
            self._ready[writer] = None
            self._note_trouble(writer, outcome)
            return
        if isinstance(outcome, Exception):
            writer.fail(StreamUnavailable(f"{type(outcome).__name__}: {outcome}"))
        elif outcome is Appended.FENCED:
            writer.fail(Fenced())
        elif outcome is Appended.GONE:
            writer.fail(StreamGone())
        elif writer.land():
            self._ready[writer] = None
        self._note_end_of_trouble(writer)

    def _note_trouble(self, writer: StreamWriter, error: Exception) -> None:
        if not self._troubled:
            log.warning("appends fail", extra={"error": repr(error), "stream": writer.key})
        self._troubled.add(writer)

    def _note_end_of_trouble(self, writer: StreamWriter) -> None:
        if writer in self._troubled:
            self._troubled.remove(writer)
            if not self._troubled:
                log.info("no append is failing any more")
