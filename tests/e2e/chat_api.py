"""Calls of the chat API over plain HTTP that tests share: open a session, ask, read a stream, read what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx

from tests.e2e.sse import Event, SseStream, open_stream
from tests.speed import limit


async def open_session(client: httpx.AsyncClient) -> str:
    response = await client.post("/api/chat/sessions", json={})
    assert response.status_code == 200, response.text
    session: str = response.json()["id"]
    return session


@asynccontextmanager
async def asked(client: httpx.AsyncClient, session: str, text: str, **more: Any) -> AsyncIterator[SseStream]:
    """Posts a message and yields its stream. `more` are fields of the body, such as message_id and on_busy."""
    path = f"/api/chat/sessions/{session}/stream"
    async with open_stream(client, "POST", path, json={"message": text, **more}) as stream:
        yield stream


async def converse(client: httpx.AsyncClient, session: str, *texts: str) -> None:
    """Posts the messages, each after the previous one was answered."""
    for text in texts:
        async with asked(client, session, text) as stream:
            await stream.rest()


@asynccontextmanager
async def followed(client: httpx.AsyncClient, task: str, *, cursor: str | None = None) -> AsyncIterator[SseStream]:
    """Opens a task's stream behind the cursor."""
    async with open_stream(client, "GET", f"/api/chat/tasks/{task}/stream", cursor=cursor) as stream:
        yield stream


async def until_answered(client: httpx.AsyncClient, session: str) -> None:
    """Waits until an answer in that session has begun to stream. The session may not exist yet."""
    async with asyncio.timeout(limit(20)):
        while "active_stream" not in (state := await client.get(f"/api/chat/sessions/{session}")).json():
            await asyncio.sleep(0.05)  # between two checks of a bounded wait
        async with followed(client, state.json()["active_stream"]["task_id"]) as stream:
            await stream.until(5)


async def read_with_cuts(client: httpx.AsyncClient, task: str, cuts: Sequence[int]) -> list[Event]:
    """Reads all of the task's events with a client that disconnects after so many events each time and reconnects."""
    events: list[Event] = []
    for cut in [*cuts, None]:
        cursor = events[-1].id if events else None
        async with followed(client, task, cursor=cursor) as stream:
            if stream.status == 204:
                return events
            assert stream.status == 200
            events += await (stream.rest() if cut is None else stream.until(cut))
    return events


async def history_of(client: httpx.AsyncClient, session: str) -> list[dict[str, Any]]:
    """Returns the session's messages in the format of the AI SDK."""
    response = await client.get(f"/api/chat/sessions/{session}", params={"format": "ui"})
    assert response.status_code == 200, response.text
    messages: list[dict[str, Any]] = response.json()["messages"]
    return messages


def text_in(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


async def task_of(client: httpx.AsyncClient, task: str) -> dict[str, Any]:
    response = await client.get(f"/api/chat/tasks/{task}")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def ending_of(events: Sequence[Event]) -> str:
    """Returns the status in the stream's `finish` chunk."""
    last = events[-1].chunk
    assert last["type"] == "finish", last
    status: str = last["messageMetadata"]["status"]
    return status


def assert_ids_rise(events: Sequence[Event]) -> None:
    ids = [tuple(map(int, event.id.split("-"))) for event in events if event.id is not None]
    assert all(later > earlier for earlier, later in pairwise(ids)), ids
