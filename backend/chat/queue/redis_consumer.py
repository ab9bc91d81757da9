"""A consumer of a queue in Redis: it fills an intake with the entries of a stream, each of which is settled once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from backend.chat.keys import CANCEL_CHANNEL, DEAD_TURNS, TURNS
from backend.chat.models import Turn
from backend.chat.queue.intake import Intake
from backend.chat.queue.turn_queue import UNREADABLE, UnreadableError, decode_turn, task_named_by
from backend.chat.scripts import Argument, Script
from backend.errors import Unavailable
from backend.ids import ExecutorId, TaskId
from backend.jitter import jitter
from backend.logs import Trouble, why_away
from backend.redis import answered
from backend.redis_cluster import beside

logger = logging.getLogger(__name__)

GROUP = "executors"
BODY, REASON, AGAIN = b"d", b"reason", b"again"
"""Fields of an entry. AGAIN marks a turn that was handed back; nothing reads it but people."""
READ_WAITS = 1.0
"""Seconds that a read waits in the server. Stopping a consumer may take as long."""
INHERIT_EVERY, INHERIT_LETTERS_EVERY = 0.25, 1.0
"""Seconds between two checks for dead executors, which may hold turns, or dead letters."""
INHERIT_IDLE_EVERY = 1.0
"""The same while no other executor holds an entry. It delays no takeover: the heartbeat of an executor that dies lapses
HEARTBEAT_TTL - HEARTBEAT_EVERY later at the earliest, which is as long."""
FORGET_IDLE_AFTER = 60.0
"""Seconds after which an idle consumer of the group is checked too, although nothing is pending with it."""
MAX_REDIS_DEAD_LETTERS = 10_000
"""Dead letters that the stream keeps, approximately. RabbitMQ has a limit of its own: MAX_RABBITMQ_DEAD_LETTERS."""
OWN_PAGE = 100
"""Pending entries of this consumer in one read."""
REMEMBERED = 1000
"""Settled entries whose ids a consumer remembers. A reply that was on its way may still contain them."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two tries while Redis is unavailable."""

FindDead = Callable[[Sequence[ExecutorId]], Awaitable[Collection[ExecutorId]]]
_SETTLE, _INHERIT = Script("turn_settle"), Script("turn_inherit")


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of the queue. Tests on a shared server use others."""

    turns: str = TURNS
    dead: str = DEAD_TURNS
    cancel: str = CANCEL_CHANNEL

    @classmethod
    def of(cls, redis: Redis) -> QueueKeys:
        return cls(dead=beside(redis, DEAD_TURNS, TURNS))


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of Redis: `quick` for commands that answer at once, `waiting` for pub/sub and reads that wait."""

    quick: Redis
    waiting: Redis


@dataclass(frozen=True, slots=True)
class QueueEntry:
    id: bytes
    fields: dict[bytes, bytes]

    @property
    def body(self) -> bytes:
        return self.fields.get(BODY, b"")


@dataclass(frozen=True, slots=True)
class Destination:
    """The stream to which a settled entry is added, with the fields it has there and the stream's MAXLEN (0: none)."""

    key: str
    fields: dict[bytes, bytes]
    max_length: int = 0


class UnsettledEntry:
    """An entry that is settled once."""

    def __init__(self, entry: QueueEntry, consumer: Consumer[Any]) -> None:
        self.entry = entry
        self._consumer = consumer
        self._settled = False

    async def ack(self) -> None:
        await self._settle(None)

    async def hand_back(self) -> bool:
        return await self._settle(Destination(self._consumer.key, {**self.entry.fields, AGAIN: b"1"}))

    async def _settle(self, destination: Destination | None) -> bool:
        if self._settled:
            return False
        self._settled = True
        return await self._consumer.settle(self, destination)


class RedisDelivery(UnsettledEntry):
    def __init__(self, turn: Turn, entry: QueueEntry, consumer: Consumer[Any]) -> None:
        super().__init__(entry, consumer)
        self.turn = turn


class RedisDeadTurn(UnsettledEntry):
    def __init__(self, task_id: TaskId, entry: QueueEntry, consumer: Consumer[Any]) -> None:
        super().__init__(entry, consumer)
        self.task_id = task_id
        self.reason = entry.fields.get(REASON, b"unknown").decode(errors="replace")


S = TypeVar("S", bound=UnsettledEntry)


class ReadEntry(Protocol[S]):
    """Reads an entry. Returns something to settle later, or the destination of an unreadable entry; None drops it."""

    def __call__(self, entry: QueueEntry, consumer: Consumer[S]) -> S | Destination | None: ...


def read_turn(dead_key: str, entry: QueueEntry, consumer: Consumer[RedisDelivery]) -> RedisDelivery | Destination:
    """Reads the turn in an entry. Sends an unreadable entry to the dead letters."""
    try:
        return RedisDelivery(decode_turn(entry.body), entry, consumer)
    except UnreadableError:
        logger.warning("queue entry is not a turn and becomes a dead letter", extra={"id": entry.id})
        return Destination(dead_key, {BODY: entry.body, REASON: UNREADABLE.encode()}, MAX_REDIS_DEAD_LETTERS)


def read_dead(entry: QueueEntry, consumer: Consumer[RedisDeadTurn]) -> RedisDeadTurn | None:
    """Reads the task that a dead letter names. Logs and drops a letter that names none."""
    task_id = task_named_by(entry.body)
    if task_id is None:
        logger.error("dead letter names no task and is dropped", extra={"id": entry.id, "begins": entry.body[:200]})
        return None
    return RedisDeadTurn(task_id, entry, consumer)


class Consumer(Generic[S]):
    """One `consume()`: an intake, and the jobs that fill it from a stream's consumer group."""

    def __init__(
        self,
        clients: Clients,
        key: str,
        me: ExecutorId,
        dead: FindDead,
        slots: int,
        read: ReadEntry[S],
        *,
        inherit_every: float = INHERIT_EVERY,
    ) -> None:
        self.key = key
        self.intake: Intake[S] = Intake(slots)
        self.up = asyncio.Event()
        self._clients = clients
        self._me = me
        self._dead = dead
        self._read = read
        self._inherit_every = inherit_every
        self._caught_up = False
        self._known: set[bytes] = set()
        self._settled: deque[bytes] = deque(maxlen=REMEMBERED)
        self._trouble = Trouble(logger, "turn queue cannot be read", key=key)

    async def run(self) -> None:
        """Takes entries until the intake is closed. Never cancels a read, because its entries would stay pending."""
        try:
            await asyncio.gather(self._take(), self._inherit())
        except Exception:
            logger.exception("queue consumer failed", extra={"key": self.key})
            raise
        finally:
            self.up.clear()
            self.intake.close()

    async def settle(self, unsettled: S, destination: Destination | None) -> bool:
        """Removes an entry from the stream, and adds it to the destination if there is one.

        Returns False if another executor has the entry, or if Redis is unavailable and the outcome is not known.
        """
        try:
            if not (done := await self._remove(unsettled.entry, destination)):
                logger.info("queue entry was settled too late", extra={"id": unsettled.entry.id})
        except (Unavailable, RedisError) as error:
            self._caught_up = False  # the entry is still pending and must be read again
            extra = {"id": unsettled.entry.id, "trouble": why_away(error)}
            logger.warning("queue entry was not settled", extra=extra)
            return False
        else:
            if done:  # otherwise another executor has the entry, which may come back if that one dies
                self._settled.append(unsettled.entry.id)
            return done
        finally:
            self._known.discard(unsettled.entry.id)
            self.intake.settle(unsettled)

    async def forget(self) -> None:
        """Removes this consumer from the group. If entries are pending with it, another executor does it later."""
        with suppress(Unavailable, RedisError):
            async with answered():
                await _INHERIT.run(self._clients.quick, [self.key], [GROUP, self._me, self._me, 0])

    async def _remove(self, entry: QueueEntry, destination: Destination | None) -> bool:
        keys = [self.key] if destination is None else [self.key, destination.key]
        fields = () if destination is None else tuple(chain.from_iterable(destination.fields.items()))
        max_length = destination.max_length if destination else 0
        arguments: list[Argument] = [GROUP, self._me, entry.id, max_length, *fields]
        async with answered():
            return bool(await _SETTLE.run(self._clients.quick, keys, arguments))

    async def _take(self) -> None:
        pause = FIRST_PAUSE
        while not self.intake.closed:
            await self.intake.wait_for_slot()
            try:
                if not self._caught_up:
                    await self._catch_up()
                await self._put_in(await self._read_entries(">"))
                pause = FIRST_PAUSE
                self._trouble.over()
            except (RedisError, OSError, Unavailable) as error:
                self._caught_up = False
                self.up.clear()
                wait = jitter(pause)
                self._trouble.met(why_away(error), retry_in=round(wait, 2))
                await self.intake.closes_within(wait)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _catch_up(self) -> None:
        """Creates the group if it is missing, and takes the pending entries whose delivery was lost on the way."""
        try:
            await self._clients.quick.xgroup_create(self.key, GROUP, "0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._caught_up = True
        after: bytes | str = "0"
        while entries := await self._read_entries(after):
            await self._put_in(entries)
            after = entries[-1].id
        self.up.set()

    async def _read_entries(self, after: bytes | str) -> list[QueueEntry]:
        """Reads new entries if `after` is `>`: waits for the first, and takes as many as slots are free.

        Otherwise reads a page of the entries that are pending with this consumer, after that id.
        """
        new = after == ">"
        reply: Any = await self._clients.waiting.xreadgroup(
            GROUP,
            self._me,
            {self.key: after},
            count=max(1, self.intake.free) if new else OWN_PAGE,
            block=int(READ_WAITS * 1000) if new else None,
        )
        return [QueueEntry(id_, fields or {}) for _, entries in reply or () for id_, fields in entries]

    async def _put_in(self, entries: Iterable[QueueEntry]) -> None:
        for entry in entries:
            if entry.id in self._known or entry.id in self._settled:
                continue
            found = self._read(entry, self) if entry.fields else None
            if not isinstance(found, UnsettledEntry):
                await self._remove(entry, found)
                continue
            self._known.add(entry.id)
            if not self.intake.offer(found):
                await found.hand_back()

    async def _inherit(self) -> None:
        pause = self._inherit_every
        while not await self.intake.closes_within(pause):
            pause = self._inherit_every
            with suppress(RedisError, OSError, Unavailable):  # `_take` meets the same failure and logs it
                async with answered():
                    if not await self._inherit_once():
                        pause = max(pause, INHERIT_IDLE_EVERY)

    async def _inherit_once(self) -> bool:
        """Takes over the entries of dead executors. Returns False if no other executor held an entry."""
        others, held = [], False
        for consumer in await self._clients.quick.xinfo_consumers(self.key, GROUP):
            name = consumer["name"].decode()
            if name != self._me and (consumer["pending"] or consumer["idle"] > FORGET_IDLE_AFTER * 1000):
                others.append(ExecutorId(name))
                held = held or bool(consumer["pending"])
        for dead in await self._dead(others) if others else ():
            arguments: list[Argument] = [GROUP, dead, self._me, max(0, self.intake.free)]
            try:
                entries = await _INHERIT.run(self._clients.quick, [self.key], arguments)
            finally:
                # The answer may be lost, even unnoticed, and a second call would find nothing. So read what is pending.
                self._caught_up = False
            logger.info("took over the queue entries of a dead executor", extra={"dead": dead, "entries": len(entries)})
            await self._put_in(QueueEntry(id_, _pairs(flat)) for id_, flat in entries)
        return held


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
