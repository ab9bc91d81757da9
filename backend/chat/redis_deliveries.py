"""Taking from a queue that is a Redis stream: entries in hand, and the taker that fills an intake with them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from backend.chat.keys import CANCEL_CHANNEL, DEAD_TURNS, TURNS
from backend.chat.models import Turn
from backend.chat.scripts import Argument, Script
from backend.chat.turns import UNREADABLE, Intake, UnreadableError, decode_turn, task_named_by
from backend.errors import Unavailable
from backend.ids import ExecutorId, TaskId
from backend.logs import Trouble, why_away
from backend.redis import answered

log = logging.getLogger(__name__)

GROUP = "executors"
BODY, REASON, AGAIN = b"d", b"reason", b"again"
READ_WAITS = 1.0
"""Seconds that a read waits in the server; also how long leaving may take."""
INHERIT_EVERY = 0.25
FORGET_IDLE_AFTER = 60.0
DEAD_LETTERS_KEPT = 10_000
OWN_PAGE = 100
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0

WhoIsDead = Callable[[Sequence[ExecutorId]], Awaitable[Collection[ExecutorId]]]
_SETTLE, _INHERIT = Script("turn_settle"), Script("turn_inherit")


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The queue's keys; tests give it others on a shared server."""

    turns: str = TURNS
    dead: str = DEAD_TURNS
    cancel: str = CANCEL_CHANNEL


@dataclass(frozen=True, slots=True)
class Clients:
    """`quick` for commands that answer at once; `waiting` for reads that wait in the server, and pub/sub."""

    quick: Redis
    waiting: Redis


@dataclass(frozen=True, slots=True)
class Entry:
    id: bytes
    fields: dict[bytes, bytes]
    redelivered: bool

    @property
    def body(self) -> bytes:
        return self.fields.get(BODY, b"")


@dataclass(frozen=True, slots=True)
class Put:
    """Where an entry is added again when it is settled, and how many entries that stream keeps (0: all)."""

    key: str
    fields: dict[bytes, bytes]
    keep: int = 0


class InHand:
    """An entry that is settled once."""

    def __init__(self, entry: Entry, taker: Taker[Any]) -> None:
        self.entry = entry
        self._taker = taker
        self._settled = False

    async def ack(self) -> None:
        await self._settle(None)

    async def hand_back(self) -> bool:
        return await self._settle(Put(self._taker.key, {**self.entry.fields, AGAIN: b"1"}))

    async def _settle(self, put: Put | None) -> bool:
        if self._settled:
            return False
        self._settled = True
        return await self._taker.settle(self, put)


class RedisDelivery(InHand):
    def __init__(self, turn: Turn, entry: Entry, taker: Taker[Any], graveyard: str) -> None:
        super().__init__(entry, taker)
        self.turn = turn
        self.redelivered = entry.redelivered or AGAIN in entry.fields
        self._graveyard = graveyard

    async def refuse(self, reason: str) -> None:
        await self._settle(_letter(self._graveyard, self.entry, reason))


class RedisDeadTurn(InHand):
    def __init__(self, task_id: TaskId, entry: Entry, taker: Taker[Any]) -> None:
        super().__init__(entry, taker)
        self.task_id = task_id
        self.reason = entry.fields.get(REASON, b"unknown").decode(errors="replace")


def _letter(graveyard: str, entry: Entry, reason: str) -> Put:
    return Put(graveyard, {BODY: entry.body, REASON: reason[:500].encode()}, DEAD_LETTERS_KEPT)


S = TypeVar("S", bound=InHand)


class Read(Protocol[S]):
    """What to make of an entry: something to hold, or where to put what cannot be read."""

    def __call__(self, entry: Entry, taker: Taker[S]) -> S | Put | None: ...


def read_turn(graveyard: str, entry: Entry, taker: Taker[RedisDelivery]) -> RedisDelivery | Put:
    """The turn in an entry; an unreadable one goes to the dead letters."""
    try:
        return RedisDelivery(decode_turn(entry.body), entry, taker, graveyard)
    except UnreadableError:
        log.warning("turn_unreadable", extra={"id": entry.id})
        return _letter(graveyard, entry, UNREADABLE)


def read_dead(entry: Entry, taker: Taker[RedisDeadTurn]) -> RedisDeadTurn | None:
    """The task that a dead letter names; one that names none is logged and dropped."""
    task_id = task_named_by(entry.body)
    if task_id is None:
        log.error("dead_turn_dropped", extra={"id": entry.id, "begins": entry.body[:200]})
        return None
    return RedisDeadTurn(task_id, entry, taker)


class Taker(Generic[S]):
    """One `consume()`: an intake, and the jobs that fill it from a stream's consumer group."""

    def __init__(self, clients: Clients, key: str, me: ExecutorId, dead: WhoIsDead, slots: int, read: Read[S]) -> None:
        self.key = key
        self.intake: Intake[S] = Intake(slots)
        self.up = asyncio.Event()
        self._clients = clients
        self._me = me
        self._dead = dead
        self._read = read
        self._caught_up = False
        self._known: set[bytes] = set()
        self._trouble = Trouble(log, "turn queue not read", key=key)

    async def run(self) -> None:
        """Takes until the intake is closed. A read is never cancelled: what it would have brought would go unseen."""
        try:
            await asyncio.gather(self._take(), self._inherit())
        except Exception:
            log.exception("taking_failed", extra={"key": self.key})
            raise
        finally:
            self.up.clear()
            self.intake.close()

    async def settle(self, hand: S, put: Put | None) -> bool:
        """False when it was not ours any more, or nobody knows because Redis is away."""
        try:
            if not (done := await self._take_off(hand.entry, put)):
                log.info("settled_too_late", extra={"id": hand.entry.id})
        except (Unavailable, RedisError) as error:
            self._caught_up = False  # it is pending still, and is read again
            log.warning("not_settled", extra={"id": hand.entry.id, "trouble": repr(error)})
            return False
        else:
            return done
        finally:
            self._known.discard(hand.entry.id)
            self.intake.settle(hand)

    async def forget(self) -> None:
        """Takes our name off the group unless something is pending; somebody else does it later then."""
        with suppress(Unavailable, RedisError):
            async with answered():
                await _INHERIT.run(self._clients.quick, [self.key], [GROUP, self._me, self._me, 0])

    async def _take_off(self, entry: Entry, put: Put | None) -> bool:
        keys = [self.key] if put is None else [self.key, put.key]
        fields = () if put is None else tuple(chain.from_iterable(put.fields.items()))
        arguments: list[Argument] = [GROUP, self._me, entry.id, put.keep if put else 0, *fields]
        async with answered():
            return bool(await _SETTLE.run(self._clients.quick, keys, arguments))

    async def _take(self) -> None:
        pause = FIRST_PAUSE
        while not self.intake.closed:
            await self.intake.room()
            try:
                if not self._caught_up:
                    await self._catch_up()
                await self._bring(await self._ask(">"))
                pause = FIRST_PAUSE
                self._trouble.over()
            except (RedisError, OSError, Unavailable) as error:
                self._caught_up = False
                self.up.clear()
                self._trouble.met(why_away(error))
                await self.intake.closes_within(random.uniform(pause / 2, pause))  # noqa: S311  # jitter, no secret
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _catch_up(self) -> None:
        """Makes the group if it is missing, and takes what is ours by an answer that we never got."""
        try:
            await self._clients.quick.xgroup_create(self.key, GROUP, "0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._caught_up = True
        after: bytes | str = "0"
        while entries := await self._ask(after):
            await self._bring(entries)
            after = entries[-1].id
        self.up.set()

    async def _ask(self, after: bytes | str) -> list[Entry]:
        """New entries (`>`), as many as slots are free, waiting for the first; or a page of our own after an id."""
        new = after == ">"
        reply: Any = await self._clients.waiting.xreadgroup(
            GROUP,
            self._me,
            {self.key: after},
            count=max(1, self.intake.free) if new else OWN_PAGE,
            block=int(READ_WAITS * 1000) if new else None,
        )
        return [Entry(id_, fields or {}, redelivered=not new) for _, entries in reply or () for id_, fields in entries]

    async def _bring(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.id in self._known:
                continue
            held = self._read(entry, self) if entry.fields else None
            if not isinstance(held, InHand):
                await self._take_off(entry, held)
                continue
            self._known.add(entry.id)
            if not self.intake.offer(held):
                await held.hand_back()

    async def _inherit(self) -> None:
        while not await self.intake.closes_within(INHERIT_EVERY):
            with suppress(RedisError, OSError, Unavailable):  # `_take` meets the same trouble and tells
                async with answered():
                    await self._inherit_once()

    async def _inherit_once(self) -> None:
        others = []
        for consumer in await self._clients.quick.xinfo_consumers(self.key, GROUP):
            name = consumer["name"].decode()
            if name != self._me and (consumer["pending"] or consumer["idle"] > FORGET_IDLE_AFTER * 1000):
                others.append(ExecutorId(name))
        for dead in await self._dead(others) if others else ():
            arguments: list[Argument] = [GROUP, dead, self._me, max(0, self.intake.free)]
            try:
                entries = await _INHERIT.run(self._clients.quick, [self.key], arguments)
            finally:
                # Its answer may be lost, also unnoticed: sent again, it finds nothing. What became ours is read then.
                self._caught_up = False
            log.info("turns_inherited", extra={"dead": dead, "entries": len(entries)})
            await self._bring(Entry(id_, _pairs(flat), redelivered=True) for id_, flat in entries)


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
