"""Deliveries and cancel requests that have arrived in this process and wait to be taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Generic, TypeVar

from backend.chat.queue.turn_queue import task_named_by
from backend.ids import TaskId

MAX_CANCEL_REQUESTS = 10_000
"""Requests that wait for a listener."""
D = TypeVar("D")


class Intake(AsyncIterator[D], Generic[D]):
    """The deliveries of one `consume()`: those that wait to be taken, and those that were taken and are not settled.

    Iterate over it to take deliveries; the iteration ends when the intake is closed. `slots` limits the unsettled ones.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._closing = asyncio.Event()
        self._changed = asyncio.Event()
        self._waiting: asyncio.Queue[D | None] = asyncio.Queue()
        self._unsettled: set[D] = set()

    @property
    def free(self) -> int:
        """The number of slots without a delivery. May be negative."""
        return self.slots - len(self._unsettled) - self._waiting.qsize()

    @property
    def unsettled(self) -> frozenset[D]:
        """The deliveries that were taken and are not settled."""
        return frozenset(self._unsettled)

    @property
    def closed(self) -> bool:
        return self._closing.is_set()

    def offer(self, delivery: D) -> bool:
        """Adds a delivery. Returns False if the intake is closed: the delivery must then go back."""
        if not self.closed:
            self._waiting.put_nowait(delivery)
        return not self.closed

    def settle(self, delivery: D) -> bool:
        """Frees the slot of a delivery. Returns False if it was settled before."""
        if delivery not in self._unsettled:
            return False
        self._unsettled.discard(delivery)
        self._changed.set()
        return True

    def withdraw(self) -> list[D]:
        """Removes and returns the deliveries that were not taken yet."""
        rest: list[D] = []
        while not self._waiting.empty():
            if (delivery := self._waiting.get_nowait()) is not None:
                rest.append(delivery)
        if self.closed:
            self._waiting.put_nowait(None)
        return rest

    def close(self) -> list[D]:
        """Ends the iteration. Returns the deliveries that were not taken yet; they must go back."""
        self._closing.set()
        self._changed.set()
        return self.withdraw()

    async def wait_for_slot(self) -> None:
        """Waits until a slot is free or the intake is closed."""
        while self.free <= 0 and not self.closed:
            self._changed.clear()
            await self._changed.wait()

    async def closes_within(self, seconds: float) -> bool:
        """Waits up to `seconds` for close(). Returns True if the intake is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self.closed

    async def settles_within(self, seconds: float, deliveries: frozenset[D]) -> bool:
        """Waits up to `seconds` for one of `deliveries` to be settled or for close(). Returns False on timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while deliveries <= self._unsettled and not self.closed:
                    self._changed.clear()
                    await self._changed.wait()
                return True
        return False

    async def wait_until_settled(self) -> None:
        """Waits until every delivery that was taken is settled."""
        while self._unsettled:
            self._changed.clear()
            await self._changed.wait()

    async def __anext__(self) -> D:
        while len(self._unsettled) >= self.slots and not self.closed:
            self._changed.clear()
            await self._changed.wait()
        delivery = await self._waiting.get()
        if delivery is None:
            self._waiting.put_nowait(None)
            raise StopAsyncIteration
        self._unsettled.add(delivery)
        return delivery


class CancelRequests(AsyncIterator[TaskId]):
    """Cancel requests that wait for their listener. New ones are dropped if too many wait; Postgres has them."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[TaskId] = asyncio.Queue(MAX_CANCEL_REQUESTS)

    def offer(self, body: bytes) -> None:
        """Adds the request in a message. Ignores messages that name no task."""
        task_id = task_named_by(body)
        if task_id is not None and not self._waiting.full():
            self._waiting.put_nowait(task_id)

    async def __anext__(self) -> TaskId:
        return await self._waiting.get()
