"""Tests of the event feed, which informs pages about turns, operations, titles and deletions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from tests.fakes.outside_work import OutsideToolbox
from tests.integration.running_api import LIMIT, SERVICE_KEY, RunningApi, running_api
from tests.servers.redis import RedisNode


class Hints:
    """The hints that one feed delivered. `ended` is set when the server has ended or cut the feed."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.ended = asyncio.Event()
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            if block.startswith(b"data: "):
                self.seen.append(json.loads(block.removeprefix(b"data: ")))
            else:
                assert block.startswith(b":"), block

    async def until(self, kind: str, count: int = 1, **facts: Any) -> dict[str, Any]:
        """Waits for the count-th hint of type `kind` with these `facts` and returns it."""
        async with asyncio.timeout(LIMIT):
            while True:
                matching = [h for h in self.seen if h["type"] == kind and facts.items() <= h.items()]
                if len(matching) >= count:
                    return matching[count - 1]
                await asyncio.sleep(0.02)


@asynccontextmanager
async def listening(api: RunningApi, headers: dict[str, str] | None = None, **params: str) -> AsyncIterator[Hints]:
    hints = Hints()

    async def read() -> None:
        async with api.http.stream("GET", "/api/chat/events", headers=headers, params=params) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            with suppress(httpx.RemoteProtocolError, httpx.ReadError):
                async for data in answer.aiter_raw():
                    hints.feed(data)
        hints.ended.set()

    reading = asyncio.create_task(read())
    try:
        await hints.until("snapshot")
        yield hints
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, toolbox=OutsideToolbox) as resources:
        yield resources


async def test_a_page_receives_hints_about_turns_operations_titles_and_deletions(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    async with listening(api, mine) as hints:
        assert hints.seen[0] == {"type": "snapshot", "turns": [], "operations": []}
        client = await api.say(session, '/tool outside_work {"label": "a"}', mine)
        started = next(c["output"] for c in client.chunks if c["type"] == "tool-output-available")
        turn = await hints.until("turn-started", session_id=session)
        await hints.until("operation-started", operation_id=started["operation_id"], task_id=started["task_id"])
        await hints.until("turn-finished", task_id=turn["task_id"], status="completed")
        await hints.until("title-changed", session_id=session)
        path = f"/api/chat/operations/{started['operation_id']}"
        key = {"x-api-key": SERVICE_KEY}
        await api.http.post(f"{path}/progress", json={"percent": 50}, headers=key)
        await hints.until("operation-progress", percent=50, operation_id=started["operation_id"])
        await api.http.post(f"{path}/complete", json={"success": True}, headers=key)
        await hints.until("operation-finished", status="completed", task_id=started["task_id"])
        await hints.until("turn-started", task_id=started["task_id"])
        await hints.until("turn-finished", task_id=started["task_id"], status="completed")
        await api.http.patch(f"/api/chat/sessions/{session}", json={"title": "Mine"}, headers=mine)
        await hints.until("title-changed", title="Mine")
        await api.http.delete(f"/api/chat/sessions/{session}", headers=mine)
        await hints.until("session-deleted", session_id=session)


async def test_a_snapshot_lists_running_turns_and_operations(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    await api.say(session, '/tool outside_work {"label": "a"}', mine)
    path = f"/api/chat/sessions/{session}/stream"
    running = asyncio.create_task(api.read("POST", path, json={"message": "/stream 2000 20"}, headers=mine))
    active = await api.active_stream(session, mine)
    async with listening(api, mine) as hints:
        snapshot = hints.seen[0]
        assert snapshot["turns"] == [{"task_id": active["task_id"], "session_id": session, "waiting": False}]
        (operation,) = snapshot["operations"]
        assert (operation["session_id"], operation["status"]) == (session, "running")
        await api.http.post(f"/api/chat/sessions/{session}/cancel", headers=mine)
        await hints.until("turn-finished", task_id=active["task_id"], status="cancelled")
        await api.http.post(f"/api/chat/tasks/{operation['task_id']}/cancel", headers=mine)
        await hints.until("operation-finished", operation_id=operation["operation_id"], status="cancelled")
    await running


async def test_a_feed_has_no_hints_about_sessions_of_others(api: RunningApi) -> None:
    mine, other = api.as_user(), api.as_user()
    session, others = await api.new_session(mine), await api.new_session(other)
    anonymous = await api.new_session()
    async with listening(api, other) as other_hints, listening(api, session_id=anonymous) as anonymous_hints:
        await api.say(session, "Hello", mine)
        await api.say(anonymous, "Hello")
        await anonymous_hints.until("turn-finished", session_id=anonymous)
        await api.say(others, "Hello", other)
        await other_hints.until("turn-finished", session_id=others)
        assert {hint.get("session_id", others) for hint in other_hints.seen} == {others}
        assert {hint.get("session_id", anonymous) for hint in anonymous_hints.seen} == {anonymous}
    foreign = await api.http.get("/api/chat/events", headers=other, params={"session_id": session})
    assert (foreign.status_code, foreign.json()["code"]) == (404, "session_not_found")
    without_token = await api.http.get("/api/chat/events")
    assert (without_token.status_code, without_token.json()["code"]) == (401, "unauthenticated")


async def test_a_page_gets_a_new_snapshot_after_redis_was_lost(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with running_api(postgres_dsn, private_redis.dsn) as api:
        mine = api.as_user()
        session = await api.new_session(mine)
        async with listening(api, mine) as hints:
            await private_redis.kill()
            await private_redis.start()
            await hints.until("snapshot", count=2)
            await api.say(session, "Hello", mine)
            await hints.until("turn-finished", session_id=session)
