"""A foreign web page can do nothing to a server that asks for no token. The headers are those of browsers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.e2e.sse import PACE, words_for
from tests.integration.running_api import LIMIT, RunningApi, new_id, running_api

EVIL = {"origin": "http://evil.example", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, auth_mode="none", frontend_base_url="") as resources:
        yield resources


async def test_a_name_that_was_rebound_to_this_machine_reads_and_changes_nothing(api: RunningApi) -> None:
    session = await api.new_session()
    rebound = {"host": f"evil.example:{api.port}", "origin": f"http://evil.example:{api.port}"}
    chat = {"id": new_id(), "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}
    for method, path, body in (
        ("GET", "/", None),
        ("GET", "/metrics", None),
        ("GET", "/api/chat/sessions", None),
        ("GET", f"/api/chat/sessions/{session}", None),
        ("DELETE", f"/api/chat/sessions/{session}", None),
        ("POST", f"/api/chat/sessions/{session}/stream", {"message": "x"}),
        ("POST", "/api/chat", chat),
        ("GET", "/api/chat/events", None),
        ("OPTIONS", "/api/chat", None),
    ):
        answer = await api.http.request(method, path, json=body, headers=rebound)
        assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed"), (method, path)
        assert "ALLOWED_HOSTS" in answer.json()["detail"]
    assert (await api.http.get("/health/ready", headers=rebound)).status_code == 200
    assert (await api.session(session))["messages"] == []


async def test_a_page_of_another_origin_creates_cancels_and_occupies_nothing(api: RunningApi) -> None:
    session = await api.new_session()
    before = (await api.http.get("/api/chat/sessions")).json()["total"]
    words = words_for(1)
    said = asyncio.create_task(api.say(session, f"/stream {words} {PACE}"))
    task = (await api.active_stream(session))["task_id"]
    for method, path in (
        ("POST", "/api/chat/sessions"),
        ("POST", f"/api/chat/sessions/{session}/cancel"),
        ("POST", f"/api/chat/tasks/{task}/cancel"),
        *[("GET", "/api/chat/events")] * 9,
        ("GET", f"/api/chat/sessions/{session}/stream"),
    ):
        for more in ({}, {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}):
            async with asyncio.timeout(LIMIT):
                answer = await api.http.request(method, path, headers={**EVIL, **more})
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin"), (method, path)
    async with api.http.stream("GET", "/api/chat/events") as feed:
        assert feed.status_code == 200
    assert (await said).text.split() == [str(number) for number in range(words)]
    assert (await api.http.get("/api/chat/sessions")).json()["total"] == before
    assert (await api.http.get("/", headers={**EVIL, "sec-fetch-mode": "navigate"})).status_code == 200


async def test_where_tokens_are_optional_a_foreign_page_has_no_anonymous_calls(
    postgres_dsn: str, redis_dsn: str
) -> None:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        ours = {**EVIL, "origin": "https://chat.example.com"}
        refused = await api.http.post("/api/chat/sessions", headers=EVIL)
        assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
        assert (await api.http.post("/api/chat/sessions", headers=ours)).is_success
        assert (await api.http.post("/api/chat/sessions", headers={**EVIL, **api.as_user()})).is_success
