"""Writers of streams, and the flusher of a process, which has one flush in flight to each server at a time.

Each writer has a buffer. The flusher takes a batch from every buffer that is not empty and sends all of them in one
round trip. Meanwhile new chunks gather, and neighbouring deltas of one part merge. A flush begins at least INTERVAL
after the one before, so that it serves many streams. It begins at once if there was none for so long, for the first
entries of a stream, and if someone waits: for the end of a step, or for room.

A batch gets its ids and bytes once, before it is sent first. A retry sends the same ones, and `scripts/append.lua`
makes that harmless. A stream has at most one batch in flight. A batch that failed is sent again in a later flush.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from redis.asyncio import Redis

from backend.chat.protocol.chunks import Chunk
from backend.chat.scripts import Appended, Batch, append
from backend.chat.streams.write_buffer import ChunkBuffer
from backend.errors import Fenced, StreamGone, StreamUnavailable
from backend.failpoints import reach
from backend.ids import StreamId
from backend.jitter import jitter
from backend.logs import why_away
from backend.redis_cluster import shard_of

BUFFER_CAP = 1 << 20
"""Size of a writer's buffer, as `ChunkBuffer.size` counts, at which `append` suspends."""
ROUND_CAP = 8 << 20
"""Bytes after which a flush takes no more batches."""
DEADLINE = 10.0
"""Seconds after the first try until a batch is given up."""
FIRST_PAUSE = 0.02
"""Seconds, doubled after each failed try of a batch, up to LONGEST_PAUSE."""
LONGEST_PAUSE = 0.5
INTERVAL = 0.005
"""Seconds from the beginning of one flush to that of the next, unless it is urgent. A reader cannot see so short a
delay, and a round trip of its own for each delta would cost more than all the rest of the delta's way."""
URGENT_ENTRIES = 4
"""Entries at the beginning of an attempt's stream that are sent at once: the first words of an answer."""

logger = logging.getLogger(__name__)


class _Flight:
    """A batch that is not acknowledged yet."""

    __slots__ = ("batch", "due", "gives_up_at", "since", "tries", "writer")

    def __init__(self, writer: StreamWriter, batch: Batch, since: float, gives_up_at: float) -> None:
        self.writer = writer
        self.batch = batch
        self.since = since
        self.gives_up_at = gives_up_at
        self.due = 0.0
        self.tries = 0

    def give_up(self, now: float) -> bool:
        """Notes a failed try. Returns False if the batch must be sent again, at `due`.

        Always allows a second try, for a process that was frozen until after the deadline.
        """
        self.tries += 1
        if now >= self.gives_up_at and self.tries > 1:
            return True
        pause = min(FIRST_PAUSE * 2 ** min(self.tries, 10), LONGEST_PAUSE)
        self.due = now + jitter(pause)
        return False


class StreamWriter:
    """The only writer of an attempt. Its chunks enter the stream in the order of `append`, each exactly once.

    After Fenced, StreamGone or StreamUnavailable the writer never writes again, and every call raises the same error.
    """

    def __init__(self, lane: _Lane, key: str, fence: int, *, next_seq: int, create: bool) -> None:
        self.key = key
        self.fence = fence
        self._lane = lane
        self._create = create
        self._first_seq = self._next_seq = next_seq
        self._last = StreamId(fence, next_seq - 1)
        self._buffer = ChunkBuffer()
        self._since: float | None = None  # when the oldest chunk of the buffer came
        self._flight: _Flight | None = None
        self._known = False
        self._failure: Exception | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def last(self) -> StreamId:
        """The id of the newest entry that Redis has acknowledged. Its seq is `next_seq - 1` before the first one."""
        return self._last

    async def append(self, *chunks: Chunk) -> None:
        """Buffers the chunks. Waits only while the buffer is full, and takes no chunk if it is cancelled then.

        Raises Fenced, StreamGone or StreamUnavailable, even because of chunks of earlier calls. Raises ValueError or
        TypeError if JSON cannot express a chunk: the chunks before it are taken, and the writer stays usable.
        """
        if self._failure is not None or self._buffer.size >= BUFFER_CAP:
            await self._wait_for_room()
        try:
            for chunk in chunks:
                self._buffer.add(chunk)
        finally:
            if self._since is None and self._buffer:
                self._since = time.monotonic()
            if not self._known:
                self._wake()

    async def control(self, entry: bytes) -> None:
        """Buffers a control entry, as `append` does a chunk."""
        if b"\n" in entry:
            raise ValueError("a control entry must be one line")
        await self._wait_for_room()
        self._buffer.add_entry(entry)
        self._wake()

    async def drain(self) -> StreamId:
        """Waits until Redis has acknowledged all chunks, and returns the last entry's id. Raises as `append` does."""
        while self._failure is None and (self._buffer or self._flight is not None):
            await self._wait_for_answer()
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        return self._last

    def _wake(self) -> None:
        if not self._known and self._buffer:
            self._known = True
            self._lane.mark(self)
            if self._next_seq - self._first_seq < URGENT_ENTRIES:
                self._lane.hurry()

    async def _wait_for_room(self) -> None:
        while self._failure is None and self._buffer.size >= BUFFER_CAP:
            await self._wait_for_answer()
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    async def _wait_for_answer(self) -> None:
        """Waits for the next acknowledgement or failure, so no flush may wait for its time."""
        self._lane.hurry()
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
        """Returns the batch that is not acknowledged yet, or takes a new one. Returns None if there is none."""
        if self._flight is None and self._buffer:
            try:
                bodies = self._buffer.take()
            except (TypeError, ValueError) as error:  # text that cannot be encoded ends this writer, and no other
                self.fail(error)
                return None
            batch = Batch(self.key, self.fence, self._next_seq, bodies, self._create)
            self._next_seq += len(bodies)
            clock = time.monotonic()  # not the loop's clock, which counts milliseconds
            since = clock if self._since is None else self._since
            self._since = clock if self._buffer else None
            self._flight = _Flight(self, batch, since, now + deadline)
        return self._flight

    def land(self) -> bool:
        """Notes that the batch is in the stream. Returns True if there is more to send."""
        if self._flight is not None:
            self._last = StreamId(self.fence, self._flight.batch.last)
            self._flight = None
            self._create = False
        self._known = bool(self._buffer)
        self._release()
        return self._known

    def fail(self, failure: Exception) -> None:
        """Ends the writer: every call raises `failure`, or the first failure if there was one before."""
        if self._failure is None:
            self._failure = failure
        self._flight = None
        self._buffer.clear()
        self._known = True  # so that the writer never enters the flusher again
        self._release()


class Flusher:
    """The jobs of a process that send the batches of its writers. `async with Flusher(redis, ttl=...) as flusher:`

    If Redis does not take a batch (it is unavailable, loading, read-only, out of memory ...), the flusher sends the
    batch again until `deadline` seconds after the first try. Then the writer fails with StreamUnavailable. Chunks that
    are not drained are lost when the block ends. `on_appended` gets the age, in seconds, of the oldest chunk of each
    batch that Redis has taken.

    In a cluster, each master has a lane of its own, so that one that does not answer holds up nobody else.
    """

    def __init__(self, redis: Redis, *, ttl: int, deadline: float = DEADLINE) -> None:
        self._redis = redis
        self._ttl = ttl
        self._deadline = deadline
        self._lanes: dict[Hashable, _Lane] = {}
        self._troubled: set[StreamWriter] = set()
        self._begun = False
        self._closed = False
        self.on_appended: Callable[[float], None] | None = None

    async def __aenter__(self) -> Self:
        self._begun = True
        for lane in self._lanes.values():
            lane.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))

    def writer(self, key: str, fence: int, *, next_seq: int = 1, create: bool) -> StreamWriter:
        """Returns a writer that begins at `<fence>-<next_seq>`. `create` lets its first batch make a missing stream."""
        shard = shard_of(self._redis, key)
        lane = self._lanes.get(shard)
        if lane is None:
            lane = self._lanes[shard] = _Lane(self._append, self._settle, self._deadline)
            lane.closed = self._closed
            if self._begun and not self._closed:
                lane.start()
        return StreamWriter(lane, key, fence, next_seq=next_seq, create=create)

    async def _append(self, batches: Sequence[Batch]) -> Sequence[Appended | Exception]:
        return await append(self._redis, batches, self._ttl)

    def _settle(self, flight: _Flight, outcome: Appended | Exception, now: float) -> bool:
        """Takes the outcome of a flight. Returns True if its writer has something to send, now or at `flight.due`."""
        writer = flight.writer
        more = False
        if isinstance(outcome, Exception) and not flight.give_up(now):
            self._note_trouble(writer, outcome)
            return True
        if isinstance(outcome, Exception):
            writer.fail(StreamUnavailable(f"{type(outcome).__name__}: {why_away(outcome)}"))
        elif outcome is Appended.FENCED:
            writer.fail(Fenced())
        elif outcome is Appended.GONE:
            writer.fail(StreamGone())
        else:
            if self.on_appended is not None:
                self.on_appended(time.monotonic() - flight.since)
            more = writer.land()
        self._note_end_of_trouble(writer)
        return more

    def _note_trouble(self, writer: StreamWriter, error: Exception) -> None:
        if not self._troubled:
            logger.warning("appends to streams fail", extra={"error": why_away(error), "stream": writer.key})
        self._troubled.add(writer)

    def _note_end_of_trouble(self, writer: StreamWriter) -> None:
        if writer in self._troubled:
            self._troubled.remove(writer)
            if not self._troubled:
                logger.info("appends to streams work again")


class _Lane:
    """A job that has one flush in flight at a time."""

    def __init__(
        self,
        append: Callable[[Sequence[Batch]], Awaitable[Sequence[Appended | Exception]]],
        settle: Callable[[_Flight, Appended | Exception, float], bool],
        deadline: float,
    ) -> None:
        self._append = append
        self._settle = settle
        self._deadline = deadline
        self._ready: dict[StreamWriter, None] = {}
        self._flying: list[_Flight] = []
        self._wake = asyncio.Event()
        self._urgent = False
        self._break: asyncio.Future[None] | None = None
        self._job: asyncio.Task[None] | None = None
        self.closed = False

    def start(self) -> None:
        self._job = asyncio.create_task(self._run(), name="flusher")

    async def close(self) -> None:
        self.closed = True  # a cancel can get lost in redis-py's wait_for (before Python 3.12)
        if self._job is not None:
            self._job.cancel()
            await asyncio.wait({self._job})
        self._give_up()

    def mark(self, writer: StreamWriter) -> None:
        """Notes that a writer has something to send."""
        if self.closed:
            writer.fail(StreamUnavailable("the flusher is closed"))
            return
        self._ready[writer] = None
        self._wake.set()

    def hurry(self) -> None:
        """Lets the next flush begin at once, since someone waits for it."""
        self._urgent = True
        if self._break is not None and not self._break.done():
            self._break.set_result(None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self.closed:
                self._wake.clear()
                self._urgent = False
                pause = self._fill()
                if self._flying:
                    began = loop.time()
                    await self._flush()
                    await self._wait_for_next(began + INTERVAL)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        finally:
            self._give_up()

    async def _wait_for_next(self, until: float) -> None:
        """Waits until the time `until`, or until a flush is urgent."""
        loop = asyncio.get_running_loop()
        if self._urgent or loop.time() >= until:
            return
        self._break = loop.create_future()
        timer = loop.call_at(until, self.hurry)
        try:
            await self._break
        finally:
            timer.cancel()
            self._break = None

    def _give_up(self) -> None:
        self.closed = True
        for writer in [*self._ready, *(flight.writer for flight in self._flying)]:
            writer.fail(StreamUnavailable("the flusher is closed"))
        self._ready.clear()
        self._flying.clear()

    def _fill(self) -> float | None:
        """Puts the batches that may be sent now into the next flush.

        Returns the seconds until another batch may be sent, or None if no batch waits for its time.
        """
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
                outcomes = await self._append(batches)
            reach("mid_chunk")
        except Exception as error:  # noqa: BLE001 - the flusher's boundary: any failure is tried again
            outcomes = [error] * len(batches)
        flying, self._flying = self._flying, []
        now = asyncio.get_running_loop().time()
        for flight, outcome in zip(flying, outcomes, strict=True):
            if self._settle(flight, outcome, now):
                self._ready[flight.writer] = None
