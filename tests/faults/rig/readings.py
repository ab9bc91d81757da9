"""What one reader pieces together of a task's stream, over any number of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from tests.e2e.sse import Event, SseStream, text_of


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader has of an answer. `ends` are the statuses of its `finish` chunks, `last` is its last chunk's type;
    of an answer that was read from the conversation only the text and the end are known."""

    task: str
    text: str
    ends: tuple[str, ...]
    starts: int = 1
    last: str = "finish"
    ids_rise: bool = True

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Seen:
        """The reverse of `as_json`, whatever else was told."""
        return cls(
            told["task"], told["text"], tuple(told["ends"]), told["starts"], told["last"], ids_rise=told["ids_rise"]
        )


def seen_of(task: str, events: Iterable[Event]) -> Seen:
    """The events of one whole message, in the order in which they came."""
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
    """Grows with each connection; `whole` when the stream has said its end. `beginnings`: it had to begin anew.

    `accepted` is set when the message has been answered 2xx, for the first time."""

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
        """Reads to the end, or until the connection breaks: raises what httpx raises."""
        self.connections += 1
        self._forget_what_comes_again()
        async for event in stream:
            self.events.append(event)
        self.whole = stream.done

    def _forget_what_comes_again(self) -> None:
        """Chunks made for this reader alone have no id: the next connection, from the last id on, sends them again."""
        while self.events and self.events[-1].id is None:
            self.events.pop()

    def begin_anew(self) -> None:
        self.events.clear()
        self.beginnings += 1

    async def until(self, chunks: int) -> None:
        """Waits until so many chunks of text have come, since the last step that was taken back."""
        while self.seen.text.count(";") < chunks:
            await asyncio.sleep(0.02)  # between two looks of a wait that the caller bounds

    @property
    def seen(self) -> Seen:
        return seen_of(self.task, self.events)
