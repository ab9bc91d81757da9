"""Plain operations on a task's stream: pages, its top, its TTL. Appending is `writing.py`'s.

An entry is one chunk (or control entry) in one field, `d`; its id is `<fence>-<seq>`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from backend.chat.scripts import Appended, note
from backend.errors import Unavailable
from backend.ids import StreamId

FIELD = b"d"
PAGE = 1000
FIRST_PAGE = 32
PAGE_BYTES = 128 << 10


class Entry(NamedTuple):
    id: StreamId
    body: bytes


class PageSize:
    """How many entries to ask for: as many as make PAGE_BYTES, judging by the page before; at first few, never > PAGE.

    An entry is between 30 bytes and, for a tool's output, some 600 KB.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = FIRST_PAGE

    def saw(self, page: Sequence[Entry]) -> bool:
        """Learns from the answer. True when it was a full page, so that more may follow."""
        full = len(page) >= self.count
        if page:
            fitting = PAGE_BYTES * len(page) // sum(len(entry.body) for entry in page)
            self.count = max(1, min(fitting, 4 * self.count if full else self.count, PAGE))
        return full


class Streams:
    """Every method raises Unavailable when Redis does not answer; a key that is missing is an empty stream."""

    def __init__(self, redis: Redis, ttl: int) -> None:
        self._redis = redis
        self._ttl = ttl

    async def page(self, key: str, after: StreamId, *, count: int = PAGE, until: StreamId | None = None) -> list[Entry]:
        """The first `count` entries with `after` < id <= `until`."""
        with _redis_answers():
            # the name as bytes: redis-py then leaves the reply as it is, which halves the time of a page
            command: Any = self._redis.execute_command
            rows = await command(b"XRANGE", key, f"({after}", str(until) if until else "+", "COUNT", count)
        return [Entry(_parse(entry), fields[1]) for entry, fields in rows or ()]

    async def pages(self, key: str, after: StreamId, *, until: StreamId | None = None) -> AsyncIterator[list[Entry]]:
        """All entries with `after` < id <= `until`, page by page."""
        size, full = PageSize(), True
        while full and (page := await self.page(key, after, count=size.count, until=until)):
            full = size.saw(page)
            after = page[-1].id
            yield page

    async def newest(self, key: str, *, count: int = 1) -> list[Entry]:
        """The last `count` entries, in the stream's order."""
        with _redis_answers():
            rows = await self._redis.xrevrange(key, count=count)
        return _entries(reversed(rows or ()))

    async def last_of(self, key: str, fence: int) -> StreamId | None:
        """The newest entry of that attempt or an older one that is still there."""
        with _redis_answers():
            rows = await self._redis.xrevrange(key, max=f"{fence + 1}-0", count=1)
        return _entries(rows)[0].id if rows else None

    async def has(self, key: str, entry: StreamId) -> bool:
        with _redis_answers():
            return bool(await self._redis.xrange(key, str(entry), str(entry)))

    async def top(self, key: str) -> StreamId | None:
        """The highest id the stream ever had (also of an entry that was removed); None when there is no such key."""
        with _redis_answers():
            try:
                facts = await self._redis.xinfo_stream(key)
            except ResponseError as error:
                if "no such key" in str(error):
                    return None
                raise
        return _parse(facts["last-generated-id"])

    async def peek(self, after: Mapping[str, StreamId]) -> dict[str, list[StreamId]]:
        """The ids of at most two entries after each stream's id, all in one round trip; no key, none."""
        with _redis_answers():
            found: Any = await self._redis.xread({key: str(id) for key, id in after.items()}, count=2)
        return {_text(key): [_parse(entry) for entry, _ in rows] for key, rows in found or ()}

    async def note(self, key: str, fence: int, body: bytes) -> bool:
        """Adds an entry under the attempt that stands, beside its writer. False when there is no such attempt."""
        with _redis_answers():
            return await note(self._redis, key, fence, body) is Appended.NOW

    async def refresh(self, keys: Iterable[str], *, longer: float = 0) -> None:
        """Gives each stream its full TTL again, and so many seconds more."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.expire(key, self._ttl + int(longer))
        with _redis_answers():
            await pipeline.execute()

    async def remove(self, key: str, entries: Sequence[StreamId]) -> None:
        """Removes the entries in ONE command: a reader sees all of them or none."""
        if entries:
            with _redis_answers():
                await self._redis.xdel(key, *map(str, entries))

    async def delete(self, key: str) -> None:
        with _redis_answers():
            await self._redis.unlink(key)


@contextmanager
def _redis_answers() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable from error


def _text(reply: bytes | str) -> str:
    return reply if isinstance(reply, str) else reply.decode("ascii")


def _parse(text: bytes | str) -> StreamId:
    fence, seq = text.split(b"-") if isinstance(text, bytes) else text.split("-")
    return StreamId(int(fence), int(seq))


def _entries(rows: Iterable[Any]) -> list[Entry]:
    return [Entry(_parse(entry), fields[FIELD]) for entry, fields in rows]
