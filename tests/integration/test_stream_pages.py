"""Tests of the pages in which a reader loads a stream. Their size in bytes is limited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.chat.protocol.chunks import END
from backend.chat.streams.reader import attach
from backend.chat.streams.streams import FIRST_PAGE, PAGE_BYTES, Entry, Streams
from backend.ids import BEGINNING
from tests.integration.reader_rig import ReaderRig, key_of, reader_rig, text_of, turn_of
from tests.sse_client import StrictClient


@pytest.fixture(scope="module")
async def rig(redis_dsn: str) -> AsyncIterator[ReaderRig]:
    async with reader_rig(redis_dsn) as rig:
        yield rig


class MeasuredStreams(Streams):
    """Streams that record the size in bytes of each page."""

    def __init__(self, rig: ReaderRig) -> None:
        super().__init__(rig.redis, 60)
        self.sizes_in_bytes: list[int] = []

    async def page(self, *args: Any, **kwargs: Any) -> list[Entry]:
        found = await super().page(*args, **kwargs)
        self.sizes_in_bytes.append(sum(len(entry.body) for entry in found))
        return found


async def replay(rig: ReaderRig, deltas: int, text: str) -> tuple[StrictClient, list[int]]:
    task = rig.task()
    await rig.write(task, [*turn_of(deltas, text=text), END])
    streams, client = MeasuredStreams(rig), StrictClient()
    reader = await attach(rig.hub, streams, task, None, accepts=frozenset(), messages_of=rig.messages_of)
    async for data in reader:
        client.feed(data)
    assert client.done
    return client, streams.sizes_in_bytes


async def test_a_reader_of_large_entries_holds_few_of_them_at_once(rig: ReaderRig) -> None:
    large = 32 << 10
    client, sizes_in_bytes = await replay(rig, 200, "x" * large)
    assert len(client.text) == 200 * large
    assert max(sizes_in_bytes) < (FIRST_PAGE + 1) * large
    assert sum(size > 2 * PAGE_BYTES for size in sizes_in_bytes) == 1, "only the size of the first page is a guess"


async def test_entries_larger_than_a_page_are_read_one_by_one_and_small_ones_in_thousands(
    rig: ReaderRig,
) -> None:
    task, streams = rig.task(), MeasuredStreams(rig)
    huge, small = turn_of(40, text="x" * (PAGE_BYTES + 1))[:-3], turn_of(3000)[3:]
    await rig.write(task, [*huge, *small])
    found = [page async for page in streams.pages(key_of(task), BEGINNING)]
    assert sum(map(len, found)) == len(huge) + len(small)
    sizes = [len(page) for page in found]
    assert sizes[1:10] == [1] * 9
    assert sizes[-2] == 1000


async def test_a_replay_of_small_entries_takes_few_pages(rig: ReaderRig) -> None:
    client, sizes_in_bytes = await replay(rig, 5000, "word{} ")
    assert client.text == text_of(5000)
    assert len(sizes_in_bytes) < 12
