"""The hub of a process: one pub/sub connection to each server, and one ring for each stream that is followed.

Notifications only make readers fast. A ticker checks all silent streams with one XREAD, and their tasks with one
look-up. So a lost notification delays a chunk but never loses it, and the hub notices an end that nobody wrote.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from backend.chat.models import Task
from backend.chat.streams.links import Receiver, links_to
from backend.chat.streams.ring import Ring
from backend.chat.streams.streams import Streams
from backend.chat.streams.subscription import Subscription
from backend.errors import Unavailable
from backend.ids import TaskId
from backend.logs import why_away
from backend.supervised import start_supervised

TICK = 1.0
"""Seconds between two rounds of checks."""
CHECKED_TOGETHER = 500
"""Streams or tasks in one request."""
STEP_LIMIT = 5.0
"""Seconds for one request."""

logger = logging.getLogger(__name__)
LookUp = Callable[[Sequence[TaskId]], Awaitable[Sequence[Task]]]


class Hub:
    """Follows any number of streams over few connections. `async with hub:` connects it and keeps it connected.

    `look_up` returns the rows of the tasks that exist. `tick` is in seconds.
    """

    def __init__(self, dsn: str, streams: Streams, look_up: LookUp, *, tick: float = TICK) -> None:
        self._streams = streams
        self._look_up = look_up
        self._tick = tick
        self._rings: dict[bytes, Ring] = {}
        self._subscriptions: dict[bytes, set[Subscription]] = {}
        self._links = links_to(dsn, Receiver(self._on_message, self._on_confirmed, self._on_lost, self._complain))
        self._jobs: list[asyncio.Task[None]] = []
        self._complaint: str | None = None

    @property
    def healthy(self) -> bool:
        """Returns True if notifications arrive."""
        return self._links.receives and bool(self._jobs) and not any(job.done() for job in self._jobs)

    @property
    def following(self) -> int:
        """The number of streams that are followed now."""
        return len(self._rings)

    async def __aenter__(self) -> Self:
        self._jobs = [
            start_supervised(self._links.run, "hub-connection"),
            start_supervised(self._run_ticker, "hub-ticker"),
        ]
        with suppress(TimeoutError):  # without Redis the hub starts too, and is unhealthy
            async with asyncio.timeout(STEP_LIMIT):
                await self._links.connected.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        for ring in self._rings.values():
            ring.lose()

    @contextmanager
    def follow(self, key: str, task_id: TaskId) -> Iterator[Ring]:
        """Yields the ring of a stream, for as long as the block lasts. Read only after it is `confirmed`."""
        channel = key.encode()
        ring = self._rings.get(channel)
        if ring is None:
            ring = self._rings[channel] = Ring(task_id)
            self._links.add([channel])
        ring.join()
        try:
            yield ring
        finally:
            if ring.leave():
                del self._rings[channel]
                self._links.drop(channel)

    @contextmanager
    def listen(self, channels: Iterable[str]) -> Iterator[Subscription]:
        """Yields a subscription to the channels, for as long as the block lasts."""
        subscription = Subscription(channel.encode() for channel in channels)
        for channel in subscription.channels:
            self._subscriptions.setdefault(channel, set()).add(subscription)
        self._links.add(subscription.channels)
        try:
            yield subscription
        finally:
            for channel in subscription.channels:
                others = self._subscriptions[channel]
                others.discard(subscription)
                if not others:
                    del self._subscriptions[channel]
                    self._links.drop(channel)

    # --- the connection -----------------------------------------------------------------------------------------------

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        if (ring := self._rings.get(channel)) is not None:
            ring.add(payload)
        else:
            for subscription in self._subscriptions.get(channel, ()):
                subscription.add(payload)

    def _on_confirmed(self, channel: bytes) -> None:
        if (ring := self._rings.get(channel)) is not None:
            ring.confirm()
        for subscription in self._subscriptions.get(channel, ()):
            subscription.confirm(channel)

    def _on_lost(self, channels: Iterable[bytes]) -> None:
        lost = set[Subscription]()
        for channel in channels:
            if (ring := self._rings.get(channel)) is not None:
                ring.disconnect()
            lost |= self._subscriptions.get(channel, set())
        for subscription in lost:
            subscription.disconnect()

    # --- the ticker ---------------------------------------------------------------------------------------------------

    async def _run_ticker(self) -> None:
        while True:
            await asyncio.sleep(self._tick)
            self._links.check()
            rings = list(self._rings.items())
            for _, ring in rings:
                ring.tick(self._tick)
            await asyncio.gather(self._check_streams(rings), self._check_tasks(rings))

    async def _check_streams(self, rings: Sequence[tuple[bytes, Ring]]) -> None:
        """Finds lost notifications and lost streams by one XREAD, from just below each stream's newest known entry."""
        due = [(channel.decode(), ring) for channel, ring in rings if ring.stream_check_due]
        for start in range(0, len(due), CHECKED_TOGETHER):
            part = due[start : start + CHECKED_TOGETHER]
            asked = {key: ring.just_below_top for key, ring in part}
            tops = {key: ring.top for key, ring in part}
            try:
                async with asyncio.timeout(STEP_LIMIT):
                    found = await self._streams.peek(asked)
            except (Unavailable, TimeoutError) as error:
                self._complain("silent streams were not read", why_away(error.__cause__ or error), self._tick)
                return
            for key, ring in part:
                ring.check_stream(tops[key], found.get(key, ()))

    async def _check_tasks(self, rings: Sequence[tuple[bytes, Ring]]) -> None:
        """Finds tasks that ended, or were deleted, although their stream has no end."""
        due = [ring for _, ring in rings if ring.task_check_due]
        for start in range(0, len(due), CHECKED_TOGETHER):
            part = due[start : start + CHECKED_TOGETHER]
            try:
                async with asyncio.timeout(STEP_LIMIT):
                    rows = {task.id: task for task in await self._look_up([ring.task_id for ring in part])}
            except Exception as error:  # noqa: BLE001 - the boundary of a named job: the next tick tries again
                self._complain(
                    "tasks of silent streams were not looked up", why_away(error.__cause__ or error), self._tick
                )
                return
            for ring in part:
                ring.check_task(rows.get(ring.task_id))

    def _complain(self, what: str | None, error: str, wait: float) -> None:
        """Logs a failure, once for each change of state. `wait` is the pause before the next try, in seconds.

        None as `what` says that the connections are there again.
        """
        if what is None:
            if self._complaint is not None:
                logger.info("pub/sub connection was restored")
            self._complaint = None
            return
        if self._complaint != what:
            self._complaint = what
            logger.warning(what, extra={"error": error, "retry_in": round(wait, 2)})
