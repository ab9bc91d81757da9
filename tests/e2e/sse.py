"""Reads event streams as the WHATWG specifies: lines end at CRLF, LF or CR, and at nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.speed import lasting

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z)){2}")
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Event:
    """One event with data. `id` is the cursor behind it."""

    id: str | None
    data: str

    @property
    def chunk(self) -> dict[str, Any]:
        chunk: dict[str, Any] = json.loads(self.data)
        return chunk

    @property
    def done(self) -> bool:
        return self.data == "[DONE]"


class SseParser:
    """Splits bytes into events. `comments` counts the comment lines."""

    def __init__(self) -> None:
        self._pending = b""
        self.comments = 0

    def feed(self, data: bytes) -> list[Event]:
        """Returns the events that `data` completed."""
        self._pending += data
        events: list[Event] = []
        start = 0
        while match := _BLANK_LINE.search(self._pending, start):
            event = self._parse(self._pending[start : match.end()])
            start = match.end()
            if event is not None:
                events.append(event)
        self._pending = self._pending[start:]
        return events

    def _parse(self, frame: bytes) -> Event | None:
        data: list[str] = []
        event_id: str | None = None
        for line in _LINE_END.split(frame):
            name, colon, value = line.decode().partition(":")
            if not name:
                self.comments += bool(colon)
            elif name == "data":
                data.append(value.removeprefix(" "))
            elif name == "id":
                event_id = value.removeprefix(" ")
        return Event(event_id, "\n".join(data)) if data else None


class SseStream:
    """An open response, as an async iterator of its events. It ends at `[DONE]` or raises what httpx raises.

    `events` holds the events read so far, `last_id` the cursor behind them. `done` is True once `[DONE]` has come.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.events: list[Event] = []
        self.done = False
        self._parser = SseParser()
        self._source = self._read()

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def task_id(self) -> str:
        return self.response.headers["x-resumable-stream-id"]

    @property
    def last_id(self) -> str | None:
        return next((event.id for event in reversed(self.events) if event.id is not None), None)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._source

    async def _read(self) -> AsyncGenerator[Event, None]:
        async for data in self.response.aiter_bytes():
            for event in self._parser.feed(data):
                if event.done:
                    self.done = True
                    return
                self.events.append(event)
                yield event

    async def close(self) -> None:
        await self._source.aclose()

    async def rest(self) -> list[Event]:
        """Reads to the end and returns all events of this response."""
        async for _ in self:
            pass
        return self.events

    async def until(self, count: int) -> list[Event]:
        """Reads until `count` events have come in all, or the stream has ended. Returns all events so far."""
        while len(self.events) < count:
            if await anext(self._source, None) is None:
                break
        return self.events


@asynccontextmanager
async def open_stream(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    *,
    json: Any = None,
    cursor: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[SseStream]:
    """Sends the request. The client disconnects when the block is left."""
    sent = {**(headers or {}), **({"last-event-id": cursor} if cursor is not None else {})}
    async with client.stream(method, path, json=json, headers=sent) as response:
        stream = SseStream(response)
        try:
            yield stream
        finally:
            await stream.close()


def text_of(events: Iterable[Event]) -> str:
    """Returns the text that a client shows, that is the text of all steps. `reset-step` removes the text of its
    step."""
    steps = [""]
    for event in events:
        if '"text-delta"' in event.data:
            steps[-1] += event.chunk["delta"]
        elif event.data.startswith('{"type":"start-step"'):
            steps.append("")
        elif event.data.startswith('{"type":"reset-step"'):
            steps[-1] = ""
    return "".join(steps)


def types_of(events: Iterable[Event]) -> list[str]:
    return [event.chunk["type"] for event in events]


PACE = 40
"""Milliseconds between two words of an answer that must last. Each word costs CPU time in each process on
its way."""


def words_for(seconds: float, delay_ms: int = PACE) -> int:
    """Returns the number of words of an answer (`/stream N DELAY_MS`) that lasts `seconds` on the usual machine. It
    lasts longer on a slower machine, because a test that must act during the answer is slower there, too."""
    return round(lasting(seconds) * 1000 / delay_ms)


def counted(n: int) -> str:
    """Returns the text that the scripted model streams for `/stream n`."""
    return "".join(f"{number} " for number in range(n))
