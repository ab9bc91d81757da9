"""The turn queue as everybody sees it: one interface, two adapters (`rabbit_turns`, `redis_turns`), one wire form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Generic, Protocol, TypeGuard, TypeVar

import orjson

from backend.chat.models import Turn
from backend.ids import SessionId, TaskId

SCHEMA = 1
UNREADABLE = "unreadable"
WISHES_KEPT = 10_000


class Delivery(Protocol):
    """A turn in hand. Settle it once, with one of three verbs; settling after the connection was lost is no error."""

    @property
    def turn(self) -> Turn: ...
    @property
    def redelivered(self) -> bool: ...
    async def ack(self) -> None:
        """The turn is dealt with; it will not come again."""

    async def hand_back(self) -> bool:
        """The turn goes to the back of the queue, for any executor. True when the queue has it again.

        False when the connection that brought it is gone, it was taken from us or it was settled before: the turn is on
        the queue then, or with another executor, or nowhere. Whoever let go of its claim must publish it anew."""

    async def refuse(self, reason: str) -> None:
        """The turn goes to the dead letters, with the reason."""


class DeadTurn(Protocol):
    """A dead letter that names a task."""

    @property
    def task_id(self) -> TaskId: ...
    @property
    def reason(self) -> str: ...
    async def ack(self) -> None:
        """The dead letter is dealt with and may go."""


class TurnQueue(Protocol):
    """Turns on their way to executors, each delivered at least once; and cancel wishes, to every executor."""

    async def publish(self, turn: Turn) -> None:
        """Puts a turn on the queue; on return it is stored there. Raises Unavailable at once when the broker is away,
        after 5 s when it does not answer; the turn may be on the queue all the same then."""

    def consume(self, slots: int) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Takes turns, never more than `slots` that are not settled. Goes on by itself after a broker was away.

        Leaving stops the taking; what is open can still be settled until the queue is closed."""

    def dead_turns(self) -> AbstractAsyncContextManager[AsyncIterator[DeadTurn]]:
        """Takes dead letters, one at a time; those that name no task are logged and dropped."""

    async def wish_cancel(self, task_id: TaskId) -> None:
        """Tells every executor that listens; a wish that cannot be sent is only logged (it is in Postgres too)."""

    def cancel_wishes(self) -> AbstractAsyncContextManager[AsyncIterator[TaskId]]:
        """Everybody's wishes from now on; those sent while the broker is away are missed."""

    @property
    def healthy(self) -> bool:
        """Whether publishing works, and consuming and listening where they are open, as far as is known."""
        ...


class UnreadableError(ValueError):
    """The message is no turn of a schema that we know."""


def encode_turn(turn: Turn) -> bytes:
    return orjson.dumps({"task_id": turn.task_id, "session_id": turn.session_id, "schema": SCHEMA})


def decode_turn(body: bytes) -> Turn:
    """Reads what `encode_turn` wrote; fields that it does not know are ignored. Raises UnreadableError."""
    members = _members(body)
    task_id, session_id = members.get("task_id"), members.get("session_id")
    if members.get("schema") != SCHEMA or not _is_id(task_id) or not _is_id(session_id):
        raise UnreadableError
    return Turn(TaskId(task_id), SessionId(session_id))


def task_named_by(body: bytes) -> TaskId | None:
    """The task that a message names, readable as a turn or not."""
    try:
        task_id = _members(body).get("task_id")
    except UnreadableError:
        return None
    return TaskId(task_id) if _is_id(task_id) else None


def encode_wish(task_id: TaskId) -> bytes:
    """A cancel wish; `task_named_by` reads it."""
    return orjson.dumps({"task_id": task_id, "schema": SCHEMA})


def _members(body: bytes) -> dict[str, object]:
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnreadableError from error
    if not isinstance(members, dict):
        raise UnreadableError
    return members


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= 64


D = TypeVar("D")


class Intake(AsyncIterator[D], Generic[D]):
    """The deliveries of one `consume()`: those that wait to be taken, and those in hand that are not settled."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._closing = asyncio.Event()
        self._changed = asyncio.Event()
        self._waiting: asyncio.Queue[D | None] = asyncio.Queue()
        self._open: set[D] = set()

    @property
    def free(self) -> int:
        return self.slots - len(self._open) - self._waiting.qsize()

    @property
    def in_hand(self) -> frozenset[D]:
        return frozenset(self._open)

    @property
    def closed(self) -> bool:
        return self._closing.is_set()

    def offer(self, delivery: D) -> bool:
        """False when the intake is closed: the delivery must go back."""
        if not self.closed:
            self._waiting.put_nowait(delivery)
        return not self.closed

    def settle(self, delivery: D) -> bool:
        """Frees the slot of a delivery. False when it was settled before."""
        if delivery not in self._open:
            return False
        self._open.discard(delivery)
        self._changed.set()
        return True

    def withdraw(self) -> list[D]:
        """Takes out what nobody has taken yet."""
        rest: list[D] = []
        while not self._waiting.empty():
            if (delivery := self._waiting.get_nowait()) is not None:
                rest.append(delivery)
        if self.closed:
            self._waiting.put_nowait(None)
        return rest

    def close(self) -> list[D]:
        """Ends the iteration; what nobody has taken yet must go back."""
        self._closing.set()
        self._changed.set()
        return self.withdraw()

    async def room(self) -> None:
        """Waits until a slot is free or the intake is closed."""
        while self.free <= 0 and not self.closed:
            self._changed.clear()
            await self._changed.wait()

    async def closes_within(self, seconds: float) -> bool:
        """Waits at most so long for the close; whether it is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self.closed

    async def settles_within(self, seconds: float, some: frozenset[D]) -> bool:
        """Waits at most so long until one of these is settled or the intake is closed; whether it happened."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while some <= self._open and not self.closed:
                    self._changed.clear()
                    await self._changed.wait()
                return True
        return False

    async def emptied(self) -> None:
        """Waits until nothing is in hand."""
        while self._open:
            self._changed.clear()
            await self._changed.wait()

    async def __anext__(self) -> D:
        while len(self._open) >= self.slots and not self.closed:
            self._changed.clear()
            await self._changed.wait()
        delivery = await self._waiting.get()
        if delivery is None:
            self._waiting.put_nowait(None)
            raise StopAsyncIteration
        self._open.add(delivery)
        return delivery


class Wishes(AsyncIterator[TaskId]):
    """Cancel wishes that wait for their listener; when it does not come, later ones are dropped (Postgres has them)."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[TaskId] = asyncio.Queue(WISHES_KEPT)

    def offer(self, body: bytes) -> None:
        task_id = task_named_by(body)
        if task_id is not None and not self._waiting.full():
            self._waiting.put_nowait(task_id)

    async def __anext__(self) -> TaskId:
        return await self._waiting.get()
