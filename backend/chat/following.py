"""Following live streams: one pub/sub connection per process, one ring per followed stream.

Notifications only make readers fast. A ticker looks after all silent streams with one XREAD, and after their tasks
with one look-up: a lost notification delays a chunk and loses none, and an end that nobody wrote is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from backend.chat.announcements import Announcements
from backend.chat.ears import Ear
from backend.chat.models import Task
from backend.chat.rings import Ring
from backend.chat.streams import Streams
from backend.errors import Unavailable
from backend.ids import BEGINNING, StreamId, TaskId
from backend.logs import place_of
from backend.standing import start_standing

TICK = 1.0
"""Seconds. A stream that was silent for 2 ticks is looked at every 2nd, its task every 3rd."""
UNCONFIRMED_LIMIT = 10.0
AT_ONCE = 500
STEP_LIMIT = 5.0
UNHEARD_LIMIT = 5.0
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0

log = logging.getLogger(__name__)
LookUp = Callable[[Sequence[TaskId]], Awaitable[Sequence[Task]]]


class Hub:
    """Follows any number of streams over one connection. `async with hub:` connects it and keeps it connected.

    `look_up` returns the rows of those of the tasks that exist. `healthy`: notifications arrive.
    """

    def __init__(self, dsn: str, streams: Streams, look_up: LookUp, *, tick: float = TICK) -> None:
        self._dsn = dsn
        self._streams = streams
        self._look_up = look_up
        self._tick = tick
        self._rings: dict[bytes, Ring] = {}
        self._ears: dict[bytes, set[Ear]] = {}
        self._connection: Announcements | None = None
        self._jobs: list[asyncio.Task[None]] = []
        self._connected = asyncio.Event()
        self._complaint: str | None = None

    @property
    def healthy(self) -> bool:
        return self._hears and bool(self._jobs) and not any(job.done() for job in self._jobs)

    @property
    def _hears(self) -> bool:
        link = self._connection
        return link is not None and asyncio.get_running_loop().time() - link.heard_at < UNHEARD_LIMIT

    @property
    def following(self) -> int:
        """How many streams are followed now."""
        return len(self._rings)

    async def __aenter__(self) -> Self:
        self._jobs = [
            start_standing(self._stay_connected, "hub-connection"),
            start_standing(self._tick_for_ever, "hub-ticker"),
        ]
        with suppress(TimeoutError):  # comes up without Redis too, unhealthy
            async with asyncio.timeout(STEP_LIMIT):
                await self._connected.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        for ring in self._rings.values():
            ring.lost = True
            ring.wake()

    @contextmanager
    def follow(self, key: str, task_id: TaskId) -> Iterator[Ring]:
        """The ring of a stream, for as long as the block lasts. Read only after it is `confirmed`."""
        channel = key.encode()
        ring = self._rings.get(channel)
        if ring is None:
            ring = self._rings[channel] = Ring(task_id)
            if self._connection is not None:
                self._connection.subscribe([channel])
        ring.readers += 1
        try:
            yield ring
        finally:
            ring.readers -= 1
            if not ring.readers:
                del self._rings[channel]
                if self._connection is not None:
                    self._connection.unsubscribe(channel)

    @contextmanager
    def listen(self, channels: Iterable[str]) -> Iterator[Ear]:
        """What is published on the channels, for as long as the block lasts."""
        ear = Ear(channel.encode() for channel in channels)
        for channel in ear.channels:
            self._ears.setdefault(channel, set()).add(ear)
        if self._connection is not None:
            self._connection.subscribe(ear.channels)
        try:
            yield ear
        finally:
            for channel in ear.channels:
                others = self._ears[channel]
                others.discard(ear)
                if not others:
                    del self._ears[channel]
                    if self._connection is not None:
                        self._connection.unsubscribe(channel)

    # --- the connection -----------------------------------------------------------------------------------------------

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        if (ring := self._rings.get(channel)) is not None:
            ring.add(payload)
        else:
            for ear in self._ears.get(channel, ()):
                ear.add(payload)

    def _on_confirmed(self, channel: bytes) -> None:
        if (ring := self._rings.get(channel)) is not None:
            ring.confirmed = True
            ring.wake()
        for ear in self._ears.get(channel, ()):
            ear.confirm(channel)

    async def _stay_connected(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                link = await Announcements.connect(self._dsn, self._on_message, self._on_confirmed)
            except OSError as error:
                self._complain(f"pub/sub connection failed, to {place_of(self._dsn)}", error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter is no secret
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            try:
                self._connection = link
                if self._complaint is not None:
                    log.info("pub/sub connection restored")
                self._complaint = None
                link.subscribe([*self._rings, *self._ears])
                self._connected.set()
                pause = FIRST_PAUSE
                await link.closed
            finally:
                self._connection = None
                link.close()
                for ring in self._rings.values():  # readers ask the stream when it is confirmed again
                    ring.confirmed = False
                    ring.forget()
                for ear in {ear for ears in self._ears.values() for ear in ears}:
                    ear.lose()
            self._complain("pub/sub connection lost", ConnectionError())
            await asyncio.sleep(FIRST_PAUSE * random.uniform(0.0, 1.0))  # noqa: S311

    # --- the ticker ---------------------------------------------------------------------------------------------------

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._tick)
            self._check_connection()
            rings = list(self._rings.items())
            for _, ring in rings:
                ring.silent += 1
                ring.unconfirmed = 0.0 if ring.confirmed else ring.unconfirmed + self._tick
                if ring.unconfirmed > UNCONFIRMED_LIMIT:
                    ring.lost = True
                    ring.wake()
            await asyncio.gather(self._check_streams(rings), self._check_tasks(rings))

    def _check_connection(self) -> None:
        link = self._connection
        if link is not None:
            if self._hears:
                link.ping()
            else:
                link.close()

    async def _check_streams(self, rings: Sequence[tuple[bytes, Ring]]) -> None:
        """Lost notifications and lost streams: one XREAD, each stream from just below the newest entry known of it."""
        quiet = [
            (channel.decode(), ring)
            for channel, ring in rings
            if ring.awaited and ring.confirmed and ring.silent >= 2 and ring.silent % 2 == 0
        ]
        for start in range(0, len(quiet), AT_ONCE):
            part = quiet[start : start + AT_ONCE]
            asked = {key: _below(ring.top) for key, ring in part}
            tops = {key: ring.top for key, ring in part}
            try:
                async with asyncio.timeout(STEP_LIMIT):
                    found = await self._streams.peek(asked)
            except (Unavailable, TimeoutError) as error:
                self._complain("silent streams not read", error)
                return
            for key, ring in part:
                _judge(ring, tops[key], found.get(key, ()))

    async def _check_tasks(self, rings: Sequence[tuple[bytes, Ring]]) -> None:
        """Tasks that ended, or were deleted, without a word in their stream. Two look-ups must agree on an end."""
        quiet = [
            ring for _, ring in rings if ring.awaited and ring.silent >= 3 and (ring.silent % 3 == 0 or ring.doubt)
        ]
        for start in range(0, len(quiet), AT_ONCE):
            part = quiet[start : start + AT_ONCE]
            try:
                async with asyncio.timeout(STEP_LIMIT):
                    rows = {task.id: task for task in await self._look_up([ring.task_id for ring in part])}
            except Exception as error:  # noqa: BLE001 - the boundary of a named job: a store is away, the next tick asks again
                self._complain("silent tasks not looked up", error)
                return
            for ring in part:
                _judge_task(ring, rows.get(ring.task_id))

    def _complain(self, what: str, error: BaseException) -> None:
        """Once for each change of state."""
        if self._complaint != what:
            self._complaint = what
            log.warning(what, extra={"why": repr(error)})


def _below(id: StreamId) -> StreamId:
    return StreamId(id.fence, id.seq - 1) if id.seq else id


def _judge(ring: Ring, top: StreamId, found: Sequence[StreamId]) -> None:
    """`found`: at most two entries from `top` on."""
    if ring.top != top:
        return  # it spoke meanwhile
    if not found:
        ring.lost = top != BEGINNING  # else it has not begun yet
    elif len(found) == 1 and found[0] == top:
        ring.forget()  # still silent: an idle stream costs no memory
        return
    if found or ring.lost:
        ring.forget()
        ring.wake()


def _judge_task(ring: Ring, row: Task | None) -> None:
    if row is None:
        ring.lost = True
        ring.wake()
    elif ring.silent and row.status.ended and ring.doubt:
        ring.ended = row
        ring.wake()
    else:
        ring.doubt = bool(ring.silent) and row.status.ended
