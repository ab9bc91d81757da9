"""Tests of sessions over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.running_api import LIMIT, RunningApi, new_id, new_user, running_api

WAITING_READERS = "SELECT count(*) FROM pg_locks WHERE relation = 'messages'::regclass AND NOT granted"


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as resources:
        yield resources


async def test_a_session_is_created_and_read(api: RunningApi) -> None:
    user = new_user()
    created = await api.http.post("/api/chat/sessions", json={"metadata": {"a": [1, None]}}, headers=api.as_user(user))
    assert created.status_code == 200
    assert set(created.json()) == {"id", "created_at", "user_id"}
    assert created.json()["user_id"] == user
    read = await api.http.get(f"/api/chat/sessions/{created.json()['id']}", headers=api.as_user(user))
    assert read.status_code == 200
    body = read.json()
    assert body["metadata"] == {"a": [1, None]}
    assert body["messages"] == body["queued"] == body["operations"] == []
    assert body["title"] is None
    assert body["usage"]["total_tokens"] == 0
    assert "active_stream" not in body


async def test_an_id_of_the_client_is_accepted_repeatedly(api: RunningApi) -> None:
    id, mine = new_id(), api.as_user("owner-of-ids")
    first = await api.http.post("/api/chat/sessions", json={"id": id}, headers=mine)
    again = await api.http.post("/api/chat/sessions", json={"id": id}, headers=mine)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    foreign = await api.http.post("/api/chat/sessions", json={"id": id}, headers=api.as_user())
    assert (foreign.status_code, foreign.json()["code"]) == (404, "session_not_found")


async def test_sessions_are_listed_newest_first_searched_and_paged(api: RunningApi) -> None:
    mine = api.as_user()
    ids = [await api.new_session(mine) for _ in range(3)]
    for id, title in zip(ids, ("One", "100% of two", "Three"), strict=True):
        renamed = await api.http.patch(f"/api/chat/sessions/{id}", json={"title": f"  {title} "}, headers=mine)
        assert (renamed.status_code, renamed.json()["title"]) == (200, title)
    listed = (await api.http.get("/api/chat/sessions", headers=mine)).json()
    assert listed["total"] == 3
    assert {one["id"] for one in listed["sessions"]} == set(ids)
    found = (await api.http.get("/api/chat/sessions", params={"q": "100%"}, headers=mine)).json()
    assert [one["title"] for one in found["sessions"]] == ["100% of two"]
    page = (await api.http.get("/api/chat/sessions", params={"limit": 1, "offset": 1}, headers=mine)).json()
    assert (len(page["sessions"]), page["total"]) == (1, 3)
    assert (await api.http.get("/api/chat/sessions")).json() == {"sessions": [], "total": 0}


async def _listed(api: RunningApi, mine: dict[str, str], **params: Any) -> list[str]:
    answer = await api.http.get("/api/chat/sessions", params=params, headers=mine)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["total"] == len(found["sessions"])
    return [one["id"] for one in found["sessions"]]


async def test_pinned_sessions_are_listed_first_and_archived_ones_apart(api: RunningApi) -> None:
    mine = api.as_user()
    one, two, three = [await api.new_session(mine) for _ in range(3)]

    async def change(id: str, **changes: bool) -> dict[str, Any]:
        answer = await api.http.patch(f"/api/chat/sessions/{id}", json=changes, headers=mine)
        assert answer.status_code == 200, answer.text
        changed: dict[str, Any] = answer.json()
        return changed

    assert (await change(one, is_pinned=True))["is_pinned"] is True
    changed = await change(two, is_archived=True)
    assert (changed["is_pinned"], changed["is_archived"]) == (False, True)
    assert (await api.session(two, mine))["is_archived"] is True
    assert await _listed(api, mine) == [one, three]
    assert await _listed(api, mine, archived=True) == [two]
    await change(three, is_pinned=True)
    await change(one, is_pinned=False)
    assert await _listed(api, mine) == [three, one]
    await change(two, is_archived=False)
    assert set(await _listed(api, mine)) == {one, two, three}


async def test_an_archived_session_comes_back_when_its_user_writes_in_it(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    await api.http.patch(f"/api/chat/sessions/{session}", json={"is_archived": True}, headers=mine)
    await api.say(session, "/stream 3", mine)
    assert (await api.session(session, mine))["is_archived"] is False


async def test_several_changes_of_a_session_are_made_together_or_not_at_all(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    refused = await api.http.patch(
        f"/api/chat/sessions/{session}", json={"title": " ", "is_pinned": True, "instructions": "x"}, headers=mine
    )
    assert refused.status_code == 422
    before = await api.session(session, mine)
    assert (before["is_pinned"], before["instructions"]) == (False, None)
    changes = {"title": "Both", "is_pinned": True, "instructions": "Be brief."}
    await api.http.patch(f"/api/chat/sessions/{session}", json=changes, headers=mine)
    after = await api.session(session, mine)
    assert {name: after[name] for name in changes} == changes


async def test_an_anonymous_session_becomes_a_users_once(api: RunningApi) -> None:
    id = await api.new_session()
    anonymous = await api.http.patch(f"/api/chat/sessions/{id}/assign-user")
    assert anonymous.status_code == 401
    first = api.as_user()
    assert (await api.http.patch(f"/api/chat/sessions/{id}/assign-user", headers=first)).json() == {"status": "ok"}
    assert (await api.http.patch(f"/api/chat/sessions/{id}/assign-user", headers=api.as_user())).status_code == 404
    assert (await api.http.get(f"/api/chat/sessions/{id}")).status_code == 404
    assert (await api.http.get(f"/api/chat/sessions/{id}", headers=first)).status_code == 200


async def test_a_deleted_session_is_not_found(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    await api.say(id, "hello", mine)
    assert (await api.http.delete(f"/api/chat/sessions/{id}", headers=mine)).status_code == 204
    for answer in (
        await api.http.delete(f"/api/chat/sessions/{id}", headers=mine),
        await api.http.get(f"/api/chat/sessions/{id}", headers=mine),
        await api.http.post(f"/api/chat/sessions/{id}/stream", json={"message": "hello"}, headers=mine),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")


async def test_a_conversation_is_read_as_rows_in_pages(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    for n in range(3):
        await api.say(id, f"message {n}", mine, message_id=f"m{n}")
    rows = (await api.http.get(f"/api/chat/sessions/{id}", headers=mine)).json()["messages"]
    assert [row["sequence"] for row in rows] == list(range(1, 7))
    assert [row["role"] for row in rows] == ["user", "assistant"] * 3
    assert [row["content"] for row in rows if row["role"] == "user"] == ["message 0", "message 1", "message 2"]
    assert rows[0]["message_id"] == "m0"
    assert rows[0]["parts"] == [{"type": "text", "text": "message 0"}]
    params = {"limit": 2, "before": 5}
    page = (await api.http.get(f"/api/chat/sessions/{id}", params=params, headers=mine)).json()["messages"]
    assert [row["sequence"] for row in page] == [3, 4]


@pytest.mark.parametrize(
    "body",
    [
        {"id": "short"},
        {"id": "x" * 65},
        {"id": "with spaces in it here"},
        {"id": "sixteen-letters!"},
        {"id": 1234567890123456},
        {"metadata": []},
        {"other": 1},
        [],
    ],
)
async def test_an_invalid_session_body_is_refused(api: RunningApi, body: object) -> None:
    answer = await api.http.post("/api/chat/sessions", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] in ("validation_error", "unknown_field")


@pytest.mark.parametrize("body", [b"", b"null", b"{}"])
async def test_a_session_needs_no_body(api: RunningApi, body: bytes) -> None:
    answer = await api.http.post("/api/chat/sessions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200


async def test_every_time_in_an_answer_has_the_same_format(api: RunningApi) -> None:
    id = await api.new_session()
    await api.say(id, "hello")
    session = await api.session(id)
    times = [session["created_at"], session["updated_at"], *(row["created_at"] for row in session["messages"])]
    assert all(re.fullmatch(r"[\d-]{10}T[\d:]{8}(\.\d+)?Z", time) for time in times), times


async def test_a_session_deleted_during_a_read_is_read_as_a_whole(api: RunningApi) -> None:
    id = await api.new_session()
    await api.say(id, "hello")
    whole = {format: await api.session(id, format=format) for format in ("rows", "ui")}
    async with api.resources.database.transaction() as c:
        await c.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")  # readers wait between two statements
        reading = [asyncio.create_task(api.session(id, format=format)) for format in whole]
        async with asyncio.timeout(LIMIT):
            while await c.fetchval(WAITING_READERS) < len(reading):
                await asyncio.sleep(0.02)
        await c.execute("DELETE FROM sessions WHERE id = $1", id)
    assert await asyncio.gather(*reading) == list(whole.values())
    assert (await api.http.get(f"/api/chat/sessions/{id}")).status_code == 404
