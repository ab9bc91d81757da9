"""The event feed: what a page hears of turns, operations, titles and deletions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.fakes.outside_work import OutsideToolbox
from tests.integration.api_house import LIMIT, SERVICE_KEY, ApiHouse, api_house
from tests.servers.redis import RedisNode


class Hints:
    """What came over one feed."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            if block.startswith(b"data: "):
                self.seen.append(json.loads(block.removeprefix(b"data: ")))
            else:
                assert block.startswith(b":"), block

    async def until(self, kind: str, count: int = 1, **facts: Any) -> dict[str, Any]:
        """The count-th hint of that kind with these facts; waits for it."""
        async with asyncio.timeout(LIMIT):
            while True:
                fitting = [h for h in self.seen if h["type"] == kind and facts.items() <= h.items()]
                if len(fitting) >= count:
                    return fitting[count - 1]
                await asyncio.sleep(0.02)


@asynccontextmanager
async def listening(api: ApiHouse, headers: dict[str, str] | None = None, **params: str) -> AsyncIterator[Hints]:
    hints = Hints()

    async def read() -> None:
        async with api.http.stream("GET", "/api/chat/events", headers=headers, params=params) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for data in answer.aiter_raw():
                hints.feed(data)

    reading = asyncio.create_task(read())
    try:
        await hints.until("snapshot")
        yield hints
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[ApiHouse]:
    async with api_house(postgres_dsn, redis_dsn, toolbox=OutsideToolbox) as house:
        yield house


async def test_a_page_hears_of_a_turn_and_of_what_the_server_started(api: ApiHouse) -> None:
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


async def test_a_snapshot_tells_what_runs(api: ApiHouse) -> None:
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


async def test_nobody_hears_of_what_is_not_theirs(api: ApiHouse) -> None:
    mine, other = api.as_user(), api.as_user()
    session = await api.new_session(mine)
    anonymous = await api.new_session()
    async with listening(api, other) as theirs, listening(api, session_id=anonymous) as nobodys:
        await api.say(session, "Hello", mine)
        await api.say(anonymous, "Hello")
        await nobodys.until("turn-finished", session_id=anonymous)
        assert {hint["type"] for hint in theirs.seen} == {"snapshot"}
        assert {hint.get("session_id", anonymous) for hint in nobodys.seen} == {anonymous}
    foreign = await api.http.get("/api/chat/events", headers=other, params={"session_id": session})
    assert (foreign.status_code, foreign.json()["code"]) == (404, "session_not_found")
    nameless = await api.http.get("/api/chat/events")
    assert (nameless.status_code, nameless.json()["code"]) == (401, "unauthenticated")


async def test_after_a_lost_redis_a_page_gets_a_snapshot_anew(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with api_house(postgres_dsn, private_redis.dsn) as api:
        mine = api.as_user()
        session = await api.new_session(mine)
        async with listening(api, mine) as hints:
            await private_redis.kill()
            await private_redis.start()
            await hints.until("snapshot", count=2)
            await api.say(session, "Hello", mine)
            await hints.until("turn-finished", session_id=session)
