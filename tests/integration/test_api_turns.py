"""Tests of the turns of a session: queued ones, cancelled ones, and a reload during one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backend.chat.flows import start
from backend.chat.models import OnBusy, TurnRequest
from backend.chat.store import tasks
from backend.ids import new_session_id
from tests.e2e.sse import PACE, words_for
from tests.integration.rows import new_user
from tests.integration.running_api import LIMIT, RunningApi, running_api


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as resources:
        yield resources


async def test_a_busy_session_queues_rejects_or_is_interrupted(api: RunningApi) -> None:
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
    questions = [row["content"] for row in (await api.session(id, mine))["messages"] if row["role"] == "user"]
    assert questions == ["/stream 2000 20", "/stream 3", "/stream 2"]


async def test_the_last_interruption_runs_first(postgres_dsn: str, redis_dsn: str) -> None:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        mine, session_id = new_user(), new_session_id()

        async def send(text: str, on_busy: OnBusy = OnBusy.QUEUE) -> None:
            request = TurnRequest(text)
            await start.start_turn(
                api.resources, mine, session_id, request, message_key=None, on_busy=on_busy, create_session=True
            )

        for text in ("active", "queued"):
            await send(text)
        for text in ("first", "second", "third"):
            await send(text, OnBusy.INTERRUPT)
        async with api.resources.database.connection() as c:
            waiting = [task.request.text for task in await tasks.queued_tasks(c, session_id)]
        assert waiting == ["third", "second", "first", "queued"]


async def test_a_reload_during_an_answer_finds_the_stream_and_no_partial_answer(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    path = f"/api/chat/sessions/{id}/stream"
    words = words_for(1.5)
    running = asyncio.create_task(api.read("POST", path, json={"message": f"/stream {words} {PACE}"}, headers=mine))
    active = await api.active_stream(id, mine)
    assert active == {
        "task_id": active["task_id"],
        "turn_id": active["task_id"],
        "started_at": active["started_at"],
        "last_message_id": "0-0",
        "operation_id": None,
        "tool_name": None,
    }
    rows = (await api.session(id, mine))["messages"]
    assert [row["role"] for row in rows] == ["user"]
    ui = (await api.session(id, mine, format="ui"))["messages"]
    assert [one["role"] for one in ui] == ["user"]
    _, second_tab = await api.read("GET", f"/api/chat/tasks/{active['task_id']}/stream", headers=mine)
    _, first_tab = await running
    assert first_tab.text == second_tab.text == "".join(f"{n} " for n in range(words))


async def test_a_cancelled_turn_ends_with_abort_and_finish(api: RunningApi) -> None:
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


async def test_a_user_has_a_limited_number_of_running_and_waiting_turns(postgres_dsn: str, redis_dsn: str) -> None:
    limits = {"max_running_turns": 2, "max_waiting_turns": 1}
    async with running_api(postgres_dsn, redis_dsn, executor=False, **limits) as api:
        mine = api.as_user()
        sessions = [await api.new_session(mine) for _ in range(3)]

        async def post(session: str) -> tuple[int, str | None]:
            path = f"/api/chat/sessions/{session}/stream"
            async with api.http.stream("POST", path, json={"message": "wait"}, headers=mine) as answer:
                if answer.status_code == 200:
                    return 200, None
                await answer.aread()
                assert int(answer.headers["retry-after"]) > 0
                return answer.status_code, answer.json()["code"]

        assert [await post(sessions[0]), await post(sessions[1])] == [(200, None)] * 2
        assert await post(sessions[2]) == (429, "rate_limited")
        assert await post(sessions[0]) == (200, None)
        assert await post(sessions[0]) == (429, "queue_full")
        assert (await api.session(sessions[2], mine))["messages"] == []
        other = api.as_user()
        path = f"/api/chat/sessions/{await api.new_session(other)}/stream"
        async with api.http.stream("POST", path, json={"message": "mine"}, headers=other) as answer:
            assert answer.status_code == 200
        for session in sessions:
            assert (await api.http.delete(f"/api/chat/sessions/{session}", headers=mine)).status_code == 204


async def test_text_that_looks_like_sse_frames_arrives_unchanged(api: RunningApi) -> None:
    words = "a\u2028b\u2029c\x85d\x0be\\n\\r: data:x event:y id:1-1 [DONE] \U0001f600 </script>"
    session = await api.new_session()
    client = await api.say(session, words)
    for word in words.split():
        assert word in client.text
    rows = (await api.session(session))["messages"]
    assert rows[0]["content"] == words
    assert rows[1]["content"] == client.text
