"""The Lua functions, as typed Python ones. Each is a file here, sent by its digest and loaded where it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua function. `name` is its file, without `.lua`."""

    name: str
    text: str = field(init=False, repr=False)
    digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        text = (Path(__file__).parent / f"{self.name}.lua").read_text("utf-8")
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "digest", sha1(text.encode(), usedforsecurity=False).hexdigest())

    async def run(self, redis: Redis, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """One call. Raises RedisError."""
        client: Any = redis  # execute_command has no types
        call = ("EVALSHA", self.digest, len(keys), *keys, *arguments)
        try:
            return await client.execute_command(*call)
        except NoScriptError:
            await redis.script_load(self.text)
            return await client.execute_command(*call)

    async def run_many(self, redis: Redis, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
        """Many calls of one key each, in one round trip. A result is the reply or, for a call that failed, its error.

        Raises RedisError when the round trip as a whole failed; any of the calls may then have been done.
        """
        results = await self._send(redis, calls)
        missing = [i for i, result in enumerate(results) if isinstance(result, NoScriptError)]
        if missing:
            await redis.script_load(self.text)
            for i, result in zip(missing, await self._send(redis, [calls[i] for i in missing]), strict=True):
                results[i] = result
        return results

    async def _send(self, redis: Redis, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
        pipeline: Any = redis.pipeline(transaction=False)
        for key, arguments in calls:
            pipeline.execute_command("EVALSHA", self.digest, 1, key, *arguments)
        results: list[Any] = await pipeline.execute(raise_on_error=False)
        return results


class Appended(IntEnum):
    """What `append` found."""

    NOW = 1
    BEFORE = 2
    FENCED = 3
    GONE = 4


@dataclass(slots=True, eq=False)
class Batch:
    """Neighbouring entries of one stream, with the ids and bytes they have for ever: `<fence>-<first>` and on."""

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


async def append(redis: Redis, batches: Sequence[Batch], ttl: int) -> list[Appended | Exception]:
    """Appends every batch to its stream, announces it on the channel of the same name and refreshes the stream's TTL.

    One round trip. Each batch succeeds or fails by itself, all of it or nothing; the same batch again changes nothing.
    Raises RedisError when the round trip as a whole failed.
    """
    calls: list[tuple[str, Sequence[Argument]]] = [
        (b.key, (int(b.create), ttl, b.fence, b.first, *b.bodies)) for b in batches
    ]
    replies = await _APPEND.run_many(redis, calls)
    return [reply if isinstance(reply, Exception) else Appended(reply) for reply in replies]


_NOTE = Script("note")


async def note(redis: Redis, key: str, fence: int, body: bytes) -> Appended:
    """Adds one entry after the stream's newest, if the attempt `fence` has written that, and announces it.

    NOW, FENCED or GONE. Raises RedisError; whether it was added is then not known.
    """
    return Appended(await _NOTE.run(redis, [key], [fence, body]))
