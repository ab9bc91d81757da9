"""The Lua scripts, as typed Python functions. Each is a file here, which a server gets when it does not know it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from backend.redis_cluster import announcing

Argument = str | bytes | int


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

    async def run_many(self, redis: Redis, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
        """Makes several calls, each with one key, in one round trip. A result is the reply or the error of its call.

        Raises RedisError if the whole round trip failed. Some or all of the calls may have been carried out then.
        """
        results = await self._send(redis, ("EVALSHA", self.digest), calls)
        missing = [i for i, result in enumerate(results) if isinstance(result, NoScriptError)]
        if missing:
            again = await self._send(redis, ("EVAL", self.text), [calls[i] for i in missing])
            for i, result in zip(missing, again, strict=True):
                results[i] = result
        return results

    async def _send(
        self, redis: Redis, how: tuple[str, str], calls: Sequence[tuple[str, Sequence[Argument]]]
    ) -> list[Any]:
        pipeline: Any = redis.pipeline(transaction=False)
        for key, arguments in calls:
            pipeline.execute_command(*how, 1, key, *arguments)
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


async def append(redis: Redis, batches: Sequence[Batch], ttl: int) -> list[Appended | Exception]:
    """Appends every batch to its stream, announces it on the channel of the same name and refreshes the stream's TTL.

    Takes one round trip; `ttl` is in seconds. Each batch is appended as a whole or not at all, whatever happens to the
    others, and a batch that is sent again changes nothing. Raises RedisError if the whole round trip failed.
    """
    announce = announcing(redis)
    calls: list[tuple[str, Sequence[Argument]]] = [
        (b.key, (announce, int(b.create), ttl, b.fence, b.first, *b.bodies)) for b in batches
    ]
    replies = await _APPEND.run_many(redis, calls)
    return [reply if isinstance(reply, Exception) else Appended(reply) for reply in replies]


_NOTE = Script("note")


async def note(redis: Redis, key: str, fence: int, body: bytes) -> Appended:
    """Appends one entry and announces it, if the attempt `fence` has written the stream's newest entry.

    Returns NOW, FENCED or GONE. Raises RedisError if there was no reply; the entry may have been added then.
    """
    return Appended(await _NOTE.run(redis, [key], [announcing(redis), fence, body]))
