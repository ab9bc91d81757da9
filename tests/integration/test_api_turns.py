"""Turns of one session: busy ones, cancelled ones, and a reload in the middle of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.integration.api_house import LIMIT, ApiHouse, api_house


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[ApiHouse]:
    async with api_house(postgres_dsn, redis_dsn) as house:
        yield house


async def test_a_busy_session_queues_rejects_or_is_interrupted(api: ApiHouse) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    path = f"/api/chat/sessions/{id}/stream"
    running = asyncio.create_task(api.read("POST", path, json={"message": "/stream 2000 20"}, headers=mine))
    active = await api.active_stream(id, mine)
    rejected = await api.http.post(path, json={"message": "no", "on_busy": "reject"}, headers=mine)
    assert (rejected.status_code, rejected.json()["code"]) == (409, "turn_in_progress")
    assert rejected.json()["task_id"] == active["task_id"]
    queued = asyncio.create_task(api.read("POST", path, json={"message": "/stream 2", "message_id": "q"}, headers=mine))
    async with asyncio.timeout(LIMIT):
        while not (waiting := (await api.session(id, mine))["queued"]):
            await asyncio.sleep(0.02)
    assert [(one["message"], one["message_id"]) for one in waiting] == [("/stream 2", "q")]
    _, urgent = await api.read("POST", path, json={"message": "/stream 3", "on_busy": "interrupt"}, headers=mine)
    assert urgent.text == "0 1 2 "
    _, cancelled = await running
    assert cancelled.done
    assert cancelled.chunks[-1]["messageMetadata"]["status"] == "cancelled"
    _, last = await queued
    assert last.text == "0 1 "
    said = [row["content"] for row in (await api.session(id, mine))["messages"] if row["role"] == "user"]
    assert said == ["/stream 2000 20", "/stream 3", "/stream 2"]


async def test_a_reload_in_mid_answer_finds_the_stream_and_not_half_the_answer(api: ApiHouse) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    path = f"/api/chat/sessions/{id}/stream"
    running = asyncio.create_task(api.read("POST", path, json={"message": "/stream 40 20"}, headers=mine))
    active = await api.active_stream(id, mine)
    assert active == {"task_id": active["task_id"], "last_message_id": "0-0", "operation_id": None, "tool_name": None}
    rows = (await api.session(id, mine))["messages"]
    assert [row["role"] for row in rows] == ["user"]
    ui = (await api.session(id, mine, format="ui"))["messages"]
    assert [one["role"] for one in ui] == ["user"]
    _, second_tab = await api.read("GET", f"/api/chat/tasks/{active['task_id']}/stream", headers=mine)
    _, first_tab = await running
    assert first_tab.text == second_tab.text == "".join(f"{n} " for n in range(40))


async def test_a_cancelled_turn_ends_cancelled_and_says_no_more(api: ApiHouse) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    path = f"/api/chat/sessions/{id}/stream"
    running = asyncio.create_task(api.read("POST", path, json={"message": "/stream 2000 20"}, headers=mine))
    active = await api.active_stream(id, mine)
    answer = await api.http.post(f"/api/chat/sessions/{id}/cancel", headers=mine)
    assert answer.json() == {"cancelled": True, "task_id": active["task_id"]}
    _, client = await running
    assert client.types[-2:] == ["abort", "finish"]
    for again in (f"/api/chat/sessions/{id}/cancel", f"/api/chat/tasks/{active['task_id']}/cancel"):
        answer = await api.http.post(again, headers=mine)
        assert (answer.status_code, answer.json()) == (200, {"cancelled": False, "reason": "no_active_task"})
