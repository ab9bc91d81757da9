"""The stream `chat:completions`: outcomes of operations, written by external services or by this product.

An entry has one field, `data`: JSON `{operation_id, task_id?, success, result?, error?}`. It stays pending until its
outcome is applied, even if its consumer dies, and is then acknowledged (XACK). An entry that a group has not finished
is never trimmed.
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
from backend.chat.models import is_too_deep
from backend.chat.outcomes import Outcome
from backend.chat.scripts import Argument, Script
from backend.ids import OperationId
from backend.redis_cluster import beside

GROUP = "chat_consumers"
FIELD = b"data"
PAGE = 100
"""Entries in one read."""
MAX_BYTES = (1 << 20) + (64 << 10)
"""Bytes of `data`; the webhook has the same limit."""
READ_WAITS = 1.0
"""Seconds that a read waits in the server. Stopping a consumer may take as long."""
MAX_DEAD_COMPLETIONS = 10_000
"""Entries that the dead stream keeps, approximately."""
FORGET_IDLE_AFTER = 3600.0
"""Seconds after which an idle consumer without pending entries leaves the group."""
REFUSALS = frozenset(
    {
        "no field `data`", "too large", "not JSON", "nested too deeply", "names no operation", "not an outcome",
        "unknown operation",
    }
)  # fmt: skip
"""The reasons for which an entry is refused. Another one is the name of an unexpected error."""
_TRIM, _LEAVE, _BURY = Script("completions_trim"), Script("turn_inherit"), Script("completion_bury")
logger = logging.getLogger(__name__)


class EntryRefused(Exception):
    """The entry cannot be applied. The message is the reason, for the dead stream."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The outcome of one operation, as an entry brings it."""

    operation_id: OperationId
    outcome: Outcome

    @classmethod
    def parse(cls, data: bytes | None) -> Completion:
        """Reads the field `data`, and ignores unknown members. Raises EntryRefused."""
        if data is None or len(data) > MAX_BYTES:
            raise EntryRefused("no field `data`" if data is None else "too large")
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise EntryRefused("not JSON") from None
        if is_too_deep(document):
            raise EntryRefused("nested too deeply")
        if not isinstance(document, dict) or not isinstance(document.get("operation_id"), str):
            raise EntryRefused("names no operation")
        success, result, error = document.get("success"), document.get("result"), document.get("error")
        if not isinstance(success, bool) or not isinstance(result, dict | str | None):
            raise EntryRefused("not an outcome")
        if not isinstance(error, str | None) or (success and error is not None):
            raise EntryRefused("not an outcome")
        return cls(OperationId(document["operation_id"]), Outcome(success, result, error))

    def encode(self) -> bytes:
        outcome = self.outcome
        document = {"operation_id": self.operation_id, "success": outcome.success}
        document |= {k: v for k, v in (("result", outcome.result), ("error", outcome.error)) if v is not None}
        return orjson.dumps(document)


async def publish_completion(redis: Redis, completion: Completion) -> None:
    """Adds an outcome to the stream. Raises RedisError, perhaps after the outcome was added. Adding it twice does no
    harm.
    """
    await redis.xadd(COMPLETIONS, {FIELD: completion.encode()})


@dataclass(frozen=True, slots=True)
class CompletionEntry:
    id: bytes
    data: bytes | None


class Completions:
    """The stream, seen by one consumer of its group. Every method raises RedisError.

    `quick` is for commands that answer at once, `waiting` for reads that wait in the server. A pending entry is stale
    after `stale_after` seconds.
    """

    def __init__(self, quick: Redis, waiting: Redis, consumer: str, *, stale_after: float) -> None:
        self._quick = quick
        self._waiting = waiting
        self._me = consumer
        self._stale_after = stale_after

    async def make_group(self) -> None:
        """Creates the stream and its group if they are missing: at first, and after Redis lost its data."""
        try:
            await self._quick.xgroup_create(COMPLETIONS, GROUP, "0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def new(self) -> list[CompletionEntry]:
        """Returns new entries, and waits up to READ_WAITS for the first. Do not cancel it: it would lose entries."""
        block = int(READ_WAITS * 1000)
        reply: Any = await self._waiting.xreadgroup(GROUP, self._me, {COMPLETIONS: ">"}, count=PAGE, block=block)
        return [entry for _, rows in reply or () for entry in _entries(rows)]

    async def pending(self) -> AsyncIterator[list[CompletionEntry]]:
        """Yields the entries that are pending with this consumer: its last process died, or an answer was lost."""
        after: bytes | str = "0"
        while True:
            reply: Any = await self._quick.xreadgroup(GROUP, self._me, {COMPLETIONS: after}, count=PAGE)
            page = [entry for _, rows in reply or () for entry in _entries(rows)]
            if not page:
                return
            yield page
            after = page[-1].id

    async def stale(self) -> AsyncIterator[list[CompletionEntry]]:
        """Claims the stale entries of every consumer, and yields them."""
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

    async def deliveries(self, entry: CompletionEntry) -> int:
        """Returns the number of times an entry was delivered, or 0 if it is not pending."""
        rows: Any = await self._quick.xpending_range(COMPLETIONS, GROUP, entry.id, entry.id, 1)
        return int(rows[0]["times_delivered"]) if rows else 0

    async def ack(self, entries: Sequence[CompletionEntry]) -> None:
        if entries:
            await self._quick.xack(COMPLETIONS, GROUP, *(entry.id for entry in entries))

    async def bury(self, entry: CompletionEntry, reason: str) -> None:
        """Moves an entry to the dead stream, with the reason, where operators find it."""
        letter: list[Argument] = [FIELD, entry.data or b"", b"reason", reason, b"id", entry.id]
        keys = [COMPLETIONS, dead_completions(self._quick)]
        await _BURY.run(self._quick, keys, [GROUP, entry.id, MAX_DEAD_COMPLETIONS, *letter])

    async def tidy(self) -> None:
        """Trims the entries that every group has finished, and removes idle consumers that have nothing pending."""
        await _TRIM.run(self._quick, [COMPLETIONS], [])
        for consumer in await self._quick.xinfo_consumers(COMPLETIONS, GROUP):
            name = consumer["name"].decode()
            if name != self._me and not consumer["pending"] and consumer["idle"] > FORGET_IDLE_AFTER * 1000:
                await self._forget(name)

    async def leave(self) -> None:
        """Removes this consumer from the group, unless entries are pending with it."""
        await self._forget(self._me)

    async def _forget(self, name: str) -> None:
        await _LEAVE.run(self._quick, [COMPLETIONS], [GROUP, name, name, 0])


def dead_completions(redis: Redis) -> str:
    """Returns the key of the refused entries."""
    return beside(redis, DEAD_COMPLETIONS, COMPLETIONS)


def _entries(rows: Any) -> list[CompletionEntry]:
    return [CompletionEntry(id, (fields or {}).get(FIELD)) for id, fields in rows]
