"""Assembles what one reader receives of a task's stream over any number of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from tests.e2e.sse import Event, SseStream, text_of


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer as a reader saw it. `ends` are the statuses of its `finish` chunks, `last` is the type of its last
    chunk. If the answer was read from the conversation, only the text and the end are known."""

    task: str
    text: str
    ends: tuple[str, ...]
    starts: int = 1
    last: str = "finish"
    ids_rise: bool = True

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Seen:
        """Reverses `as_json`. Ignores other keys."""
        return cls(
            *(about["task"], about["text"], tuple(about["ends"]), about["starts"], about["last"]),
            ids_rise=about["ids_rise"],
        )


def seen_of(task: str, events: Iterable[Event]) -> Seen:
    """Summarizes the events of one whole message, given in the order in which they came."""
    events = list(events)
    chunks = [event.chunk for event in events]
    ids = [tuple(map(int, event.id.split("-"))) for event in events if event.id is not None]
    return Seen(
        task,
        text_of(events),
        tuple(str(chunk.get("messageMetadata", {}).get("status")) for chunk in chunks if chunk["type"] == "finish"),
        sum(chunk["type"] == "start" for chunk in chunks),
        chunks[-1]["type"] if chunks else "nothing",
        all(later > earlier for earlier, later in pairwise(ids)),
    )


class Reading:
    """The events of a task's stream that a reader has received so far.

    `whole` is True once the stream has ended. `beginnings` counts how often the reader had to start from the beginning.
    `accepted` is set when the message is first answered with 2xx.
    """

    def __init__(self, task: str = "") -> None:
        self.task = task
        self.accepted = asyncio.Event()
        self.events: list[Event] = []
        self.whole = False
        self.beginnings = 1
        self.connections = 0

    @property
    def cursor(self) -> str | None:
        return next((event.id for event in reversed(self.events) if event.id is not None), None)

    def accept(self, task: str) -> None:
        self.task = task
        self.accepted.set()

    async def take(self, stream: SseStream) -> None:
        """Reads to the end. If the connection breaks, raises what httpx raises."""
        self.connections += 1
        self._drop_what_is_sent_again()
        async for event in stream:
            self.events.append(event)
        self.whole = stream.done

    def _drop_what_is_sent_again(self) -> None:
        """Drops the last chunks without an id. They were made for this reader alone, and the next connection, which
        begins behind the last id, sends them again."""
        while self.events and self.events[-1].id is None:
            self.events.pop()

    def restart(self) -> None:
        self.events.clear()
        self.beginnings += 1

    async def until(self, chunks: int) -> None:
        """Waits until so many chunks of text have come. Chunks of a step that was reset do not count."""
        while self.seen.text.count(";") < chunks:
            await asyncio.sleep(0.02)  # between two checks of a wait that the caller bounds

    @property
    def seen(self) -> Seen:
        return seen_of(self.task, self.events)
