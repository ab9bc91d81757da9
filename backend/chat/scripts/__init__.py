"""The Lua scripts, as typed Python functions. Each is a file here, which a server gets when it does not know it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from backend.redis_cluster import announcing, by_slot

Argument = str | bytes | int
Call = tuple[Sequence[str], Sequence[Argument]]
"""The keys of a script, all of one slot, and its arguments."""


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script. `name` is its file name without `.lua`."""

    name: str
    text: str = field(init=False, repr=False)
    digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        text = (Path(__file__).parent / f"{self.name}.lua").read_text("utf-8")
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "digest", sha1(text.encode(), usedforsecurity=False).hexdigest())

    async def run(self, redis: Redis, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Calls the script once and returns its reply. Raises RedisError."""
        client: Any = redis  # execute_command has no types
        call = (len(keys), *keys, *arguments)
        try:
            return await client.execute_command("EVALSHA", self.digest, *call)
        except NoScriptError:
            return await client.execute_command("EVAL", self.text, *call)

    async def run_many(self, redis: Redis, calls: Sequence[Call]) -> list[Any]:
        """Makes several calls, each with its keys and arguments, in one round trip.

        A result is the reply or the error of its call. Raises RedisError if the whole round trip failed. Some or all of
        the calls may have been carried out then.
        """
        results = await self._send(redis, ("EVALSHA", self.digest), calls)
        missing = [i for i, result in enumerate(results) if isinstance(result, NoScriptError)]
        if missing:
            again = await self._send(redis, ("EVAL", self.text), [calls[i] for i in missing])
            for i, result in zip(missing, again, strict=True):
                results[i] = result
        return results

    async def _send(self, redis: Redis, how: tuple[str, str], calls: Sequence[Call]) -> list[Any]:
        if len(calls) == 1:  # costs the client half of a pipeline
            keys, arguments = calls[0]
            client: Any = redis
            try:
                return [await client.execute_command(*how, len(keys), *keys, *arguments)]
            except ResponseError as error:
                return [error]
        pipeline: Any = redis.pipeline(transaction=False)
        for keys, arguments in calls:
            pipeline.execute_command(*how, len(keys), *keys, *arguments)
        results: list[Any] = await pipeline.execute(raise_on_error=False)
        return results


class Appended(IntEnum):
    """The reply of `append` and `note`."""

    NOW = 1
    """This call has appended the entries."""
    BEFORE = 2
    """An earlier call has appended them."""
    FENCED = 3
    """Another attempt has written to the stream since."""
    GONE = 4
    """The stream does not exist, or earlier entries of this attempt are missing from it."""


@dataclass(slots=True, eq=False)
class Batch:
    """Consecutive entries of one stream, from the id `<fence>-<first>` on. Their ids and bytes never change."""

    key: str
    fence: int
    first: int
    bodies: list[bytes]
    create: bool

    @property
    def last(self) -> int:
        return self.first + len(self.bodies) - 1

    @property
    def size(self) -> int:
        return sum(map(len, self.bodies))


_APPEND = Script("append")
TOGETHER = 64
"""Batches in one call. Redis serves nobody else meanwhile, and a call costs as much as several batches."""


async def append(redis: Redis, batches: Sequence[Batch], ttl: int) -> list[Appended | Exception]:
    """Appends every batch to its stream, announces it on the channel of the same name and refreshes the stream's TTL.

    Takes one round trip; `ttl` is in seconds. Each batch is appended as a whole or not at all, whatever happens to the
    others, and a batch that is sent again changes nothing. Raises RedisError if the whole round trip failed.
    """
    left: dict[str, list[Batch]] = {}
    for batch in batches:  # several writers may write to one stream
        left.setdefault(batch.key, []).append(batch)
    parts: list[list[Batch]] = []
    for keys in by_slot(redis, (batch.key for batch in batches)):
        group = [left[key].pop(0) for key in keys]
        parts += (group[at : at + TOGETHER] for at in range(0, len(group), TOGETHER))
    calls = [_call_of(part, announcing(redis), ttl) for part in parts]
    outcomes: dict[Batch, Appended | Exception] = {}
    for part, reply in zip(parts, await _APPEND.run_many(redis, calls), strict=True):
        replies = [reply] * len(part) if isinstance(reply, Exception) else reply
        for batch, one in zip(part, replies, strict=True):
            outcomes[batch] = one if isinstance(one, Exception) else Appended(one)
    return [outcomes[batch] for batch in batches]


def _call_of(batches: Sequence[Batch], announce: str, ttl: int) -> Call:
    arguments: list[Argument] = [announce, ttl]
    for batch in batches:
        arguments.append(f"{batch.create:d} {batch.fence} {batch.first} {len(batch.bodies)}")
        arguments += batch.bodies
    return [batch.key for batch in batches], arguments


_NOTE = Script("note")


async def note(redis: Redis, key: str, fence: int, body: bytes) -> Appended:
    """Appends one entry and announces it, if the attempt `fence` has written the stream's newest entry.

    Returns NOW, FENCED or GONE. Raises RedisError if there was no reply; the entry may have been added then.
    """
    return Appended(await _NOTE.run(redis, [key], [announcing(redis), fence, body]))
