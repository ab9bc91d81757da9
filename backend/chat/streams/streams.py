"""Operations on a task's stream other than appending (`writer.py`): pages, the top, the TTL.

An entry is one chunk (or control entry) in one field, `d`; its id is `<fence>-<seq>`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from backend.chat.scripts import Appended, note
from backend.errors import Unavailable
from backend.ids import StreamId
from backend.redis_cluster import by_slot

FIELD = b"d"
PAGE = 1000
"""Entries in a page, at most."""
FIRST_PAGE = 32
"""Entries in the first page, before their size is known."""
PAGE_BYTES = 128 << 10


class Entry(NamedTuple):
    id: StreamId
    body: bytes


class PageSize:
    """The number of entries to ask for (`count`), so that a page has about PAGE_BYTES.

    An entry has between 30 bytes and, for a tool's output, about 600 KB. So the first page is small, and the size of
    each page sets the count of the next.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = FIRST_PAGE

    def saw(self, page: Sequence[Entry]) -> bool:
        """Sets the next count by a page. Returns True if the page was full, so that more entries may follow."""
        full = len(page) >= self.count
        if page:
            fitting = PAGE_BYTES * len(page) // sum(len(entry.body) for entry in page)
            self.count = max(1, min(fitting, 4 * self.count if full else self.count, PAGE))
        return full


class Streams:
    """The streams of all tasks. `ttl` is in seconds.

    Every method raises Unavailable if Redis does not answer. A missing key counts as an empty stream.
    """

    def __init__(self, redis: Redis, ttl: int) -> None:
        self._redis = redis
        self._ttl = ttl

    async def page(self, key: str, after: StreamId, *, count: int = PAGE, until: StreamId | None = None) -> list[Entry]:
        """Returns the first `count` entries with `after` < id <= `until`."""
        with _redis_answers():
            # redis-py does not convert the reply if the command is given as bytes; this halves the time of a page
            command: Any = self._redis.execute_command
            rows = await command(b"XRANGE", key, f"({after}", str(until) if until else "+", "COUNT", count)
        return [Entry(_parse(entry), fields[1]) for entry, fields in rows or ()]

    async def pages(self, key: str, after: StreamId, *, until: StreamId | None = None) -> AsyncIterator[list[Entry]]:
        """Yields all entries with `after` < id <= `until`, page by page."""
        size, full = PageSize(), True
        while full and (page := await self.page(key, after, count=size.count, until=until)):
            full = size.saw(page)
            after = page[-1].id
            yield page

    async def newest(self, key: str, *, count: int = 1) -> list[Entry]:
        """Returns the last `count` entries, in the stream's order."""
        with _redis_answers():
            rows = await self._redis.xrevrange(key, count=count)
        return _entries(reversed(rows or ()))

    async def last_of(self, key: str, fence: int) -> StreamId | None:
        """Returns the id of the newest stored entry of the attempt `fence` or of an older one, or None."""
        with _redis_answers():
            rows = await self._redis.xrevrange(key, max=f"{fence + 1}-0", count=1)
        return _entries(rows)[0].id if rows else None

    async def has(self, key: str, entry: StreamId) -> bool:
        with _redis_answers():
            return bool(await self._redis.xrange(key, str(entry), str(entry)))

    async def top(self, key: str) -> StreamId | None:
        """Returns the highest id that the stream ever had, even of a removed entry; None if the key is missing."""
        with _redis_answers():
            try:
                facts = await self._redis.xinfo_stream(key)
            except ResponseError as error:
                if "no such key" in str(error):
                    return None
                raise
        return _parse(facts["last-generated-id"])

    async def peek(self, after: Mapping[str, StreamId]) -> dict[str, list[StreamId]]:
        """Returns the ids of at most two entries after each stream's id, in one round trip.

        The result leaves out streams that have none.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for keys in by_slot(self._redis, after):
            pipeline.xread({key: str(after[key]) for key in keys}, count=2)
        with _redis_answers():
            replies: list[Any] = await pipeline.execute()
        found = chain.from_iterable(reply or () for reply in replies)
        return {_text(key): [_parse(entry) for entry, _ in rows] for key, rows in found}

    async def note(self, key: str, fence: int, body: bytes) -> bool:
        """Adds an entry beside the writer, if the stream has fewer than 5,000.

        Returns False if it has more, or unless the attempt `fence` wrote the stream's newest entry.
        """
        with _redis_answers():
            return await note(self._redis, key, fence, body) is Appended.NOW

    async def refresh(self, keys: Iterable[str], *, longer: float = 0) -> None:
        """Gives each stream its full TTL again, and `longer` seconds more."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.expire(key, self._ttl + int(longer))
        with _redis_answers():
            await pipeline.execute()

    async def memory_of(self, keys: Sequence[str]) -> int:
        """Returns the bytes that the streams take in Redis, by its estimate. A server without the command says 0."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.memory_usage(key)
        with _redis_answers():
            sizes: Sequence[Any] = await pipeline.execute(raise_on_error=False)
        return sum(size for size in sizes if isinstance(size, int))

    async def remove(self, key: str, entries: Sequence[StreamId]) -> None:
        """Removes the entries in ONE command, so that a reader sees all of them or none."""
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
