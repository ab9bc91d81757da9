"""`chat:completions`: outcomes of operations that come by a Redis Stream, from other services or from ourselves.

An entry has one field, `data`: JSON `{operation_id, task_id?, success, result?, error?}`. It is taken off (XACK) when
it was applied, and stays pending until then, whoever dies. Nothing is trimmed that a group has not finished.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from backend.chat.keys import COMPLETIONS, DEAD_COMPLETIONS
from backend.chat.outcomes import Outcome
from backend.chat.outputs import is_too_deep
from backend.chat.scripts import Script
from backend.ids import OperationId

GROUP = "chat_consumers"
FIELD = b"data"
PAGE = 100
MOST_BYTES = (1 << 20) + (64 << 10)
"""As much as the webhook takes."""
READ_WAITS = 1.0
"""Seconds that a read waits in the server; also how long leaving may take."""
DEAD_KEPT = 10_000
FORGET_IDLE_AFTER = 3600.0
_TRIM, _LEAVE = Script("completions_trim"), Script("turn_inherit")
logger = logging.getLogger(__name__)


class Refused(Exception):
    """An entry that cannot be applied; the message says why, for the dead stream."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an entry says."""

    operation_id: OperationId
    outcome: Outcome

    @classmethod
    def parse(cls, data: bytes | None) -> Completion:
        """Raises Refused. Members that are not known are ignored."""
        if data is None or len(data) > MOST_BYTES:
            raise Refused("no field `data`" if data is None else "too large")
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise Refused("not JSON") from None
        if is_too_deep(document):
            raise Refused("nested too deeply")
        if not isinstance(document, dict) or not isinstance(document.get("operation_id"), str):
            raise Refused("names no operation")
        success, result, error = document.get("success"), document.get("result"), document.get("error")
        if not isinstance(success, bool) or not isinstance(result, dict | str | None):
            raise Refused("not an outcome")
        if not isinstance(error, str | None) or (success and error is not None):
            raise Refused("not an outcome")
        return cls(OperationId(document["operation_id"]), Outcome(success, result, error))

    def encode(self) -> bytes:
        outcome = self.outcome
        document = {"operation_id": self.operation_id, "success": outcome.success}
        document |= {k: v for k, v in (("result", outcome.result), ("error", outcome.error)) if v is not None}
        return orjson.dumps(document)


async def publish_completion(redis: Redis, completion: Completion) -> None:
    """Puts an outcome on its way. Raises RedisError; it may then be there twice, which does no harm."""
    await redis.xadd(COMPLETIONS, {FIELD: completion.encode()})


@dataclass(frozen=True, slots=True)
class Entry:
    id: bytes
    data: bytes | None


class Completions:
    """The stream as one consumer of its group has it. Every method raises RedisError."""

    def __init__(self, quick: Redis, waiting: Redis, consumer: str, *, stale_after: float) -> None:
        self._quick = quick
        self._waiting = waiting
        self._me = consumer
        self._stale_after = stale_after

    async def make_group(self) -> None:
        """Makes the stream and its group where they are missing: at first, and after Redis lost everything."""
        try:
            await self._quick.xgroup_create(COMPLETIONS, GROUP, "0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def new(self) -> list[Entry]:
        """Entries that nobody had; waits for the first. Not to be cancelled: what it would bring would go unseen."""
        block = int(READ_WAITS * 1000)
        reply: Any = await self._waiting.xreadgroup(GROUP, self._me, {COMPLETIONS: ">"}, count=PAGE, block=block)
        return [entry for _, rows in reply or () for entry in _entries(rows)]

    async def ours(self) -> AsyncIterator[list[Entry]]:
        """What is pending with us already: taken by a process of our name that died, or by an answer that was lost."""
        after: bytes | str = "0"
        while True:
            reply: Any = await self._quick.xreadgroup(GROUP, self._me, {COMPLETIONS: after}, count=PAGE)
            page = [entry for _, rows in reply or () for entry in _entries(rows)]
            if not page:
                return
            yield page
            after = page[-1].id

    async def stale(self) -> AsyncIterator[list[Entry]]:
        """What is pending with anybody for too long; it is ours from now on."""
        cursor: bytes | str = "0-0"
        while True:
            idle = int(self._stale_after * 1000)
            reply: Any = await self._quick.xautoclaim(COMPLETIONS, GROUP, self._me, idle, cursor, count=PAGE)
            cursor, rows, *deleted = reply
            if deleted and deleted[0]:
                logger.error("completions were trimmed while they were pending", extra={"count": len(deleted[0])})
            if page := list(_entries(rows)):
                yield page
            if cursor == b"0-0":
                return

    async def deliveries(self, entry: Entry) -> int:
        """How often it was handed out; 0 when it is not pending."""
        rows: Any = await self._quick.xpending_range(COMPLETIONS, GROUP, entry.id, entry.id, 1)
        return int(rows[0]["times_delivered"]) if rows else 0

    async def ack(self, entries: Sequence[Entry]) -> None:
        if entries:
            await self._quick.xack(COMPLETIONS, GROUP, *(entry.id for entry in entries))

    async def bury(self, entry: Entry, reason: str) -> None:
        """Takes it off, and keeps it with the reason for whoever looks after the system."""
        pipeline = self._quick.pipeline(transaction=True)
        letter: dict[Any, Any] = {FIELD: entry.data or b"", b"reason": reason, b"id": entry.id}
        pipeline.xadd(DEAD_COMPLETIONS, letter, maxlen=DEAD_KEPT, approximate=True)
        pipeline.xack(COMPLETIONS, GROUP, entry.id)
        await pipeline.execute()

    async def tidy(self) -> None:
        """Trims what every group has finished, and forgets consumers that are gone and have nothing pending."""
        await _TRIM.run(self._quick, [COMPLETIONS], [])
        for consumer in await self._quick.xinfo_consumers(COMPLETIONS, GROUP):
            name = consumer["name"].decode()
            if name != self._me and not consumer["pending"] and consumer["idle"] > FORGET_IDLE_AFTER * 1000:
                await self._forget(name)

    async def leave(self) -> None:
        """Takes our name off the group, unless something is pending with us."""
        await self._forget(self._me)

    async def _forget(self, name: str) -> None:
        await _LEAVE.run(self._quick, [COMPLETIONS], [GROUP, name, name, 0])


def _entries(rows: Any) -> list[Entry]:
    return [Entry(id, (fields or {}).get(FIELD)) for id, fields in rows]
