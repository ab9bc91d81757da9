"""How much of a stream a reader holds at once: what a page weighs, not how many entries it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.chat.chunks import END
from backend.chat.reading import attach
from backend.chat.streams import FIRST_PAGE, PAGE_BYTES, Entry, Streams
from backend.ids import BEGINNING
from tests.integration.reading_room import ReadingRoom, key_of, reading_room, text_of, turn_of
from tests.sse_client import StrictClient


@pytest.fixture(scope="module")
async def room(redis_dsn: str) -> AsyncIterator[ReadingRoom]:
    async with reading_room(redis_dsn) as room:
        yield room


class WeighedStreams(Streams):
    """Notes what each of its pages weighs."""

    def __init__(self, room: ReadingRoom) -> None:
        super().__init__(room.redis, 60)
        self.weights: list[int] = []

    async def page(self, *args: Any, **kwargs: Any) -> list[Entry]:
        found = await super().page(*args, **kwargs)
        self.weights.append(sum(len(entry.body) for entry in found))
        return found


async def replay(room: ReadingRoom, deltas: int, text: str) -> tuple[StrictClient, list[int]]:
    task = room.task()
    await room.write(task, [*turn_of(deltas, text=text), END])
    streams, client = WeighedStreams(room), StrictClient()
    reader = await attach(room.hub, streams, task, None, accepts=frozenset(), messages_of=room.messages_of)
    async for data in reader:
        client.feed(data)
    assert client.done
    return client, streams.weights


async def test_a_reader_of_large_entries_holds_a_bounded_piece_of_them(room: ReadingRoom) -> None:
    large = 32 << 10
    client, weights = await replay(room, 200, "x" * large)
    assert len(client.text) == 200 * large
    assert max(weights) < (FIRST_PAGE + 1) * large
    assert sum(weight > 2 * PAGE_BYTES for weight in weights) == 1, "only the first page was a guess"


async def test_entries_larger_than_a_page_come_one_by_one_and_small_ones_after_them_in_thousands(
    room: ReadingRoom,
) -> None:
    task, streams = room.task(), WeighedStreams(room)
    huge, small = turn_of(40, text="x" * (PAGE_BYTES + 1))[:-3], turn_of(3000)[3:]
    await room.write(task, [*huge, *small])
    found = [page async for page in streams.pages(key_of(task), BEGINNING)]
    assert sum(map(len, found)) == len(huge) + len(small)
    sizes = [len(page) for page in found]
    assert sizes[1:10] == [1] * 9
    assert sizes[-2] == 1000


async def test_a_replay_of_small_entries_takes_few_pages(room: ReadingRoom) -> None:
    client, weights = await replay(room, 5000, "word{} ")
    assert client.text == text_of(5000)
    assert len(weights) < 12
