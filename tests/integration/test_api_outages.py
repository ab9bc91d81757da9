"""Tests of the API while a store is unavailable: it answers 503, writes nothing partial, and recovers."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from backend.migrating import migrate
from tests.integration.catalog import execute
from tests.integration.running_api import LIMIT, SERVICE_KEY, RunningApi, new_id, running_api
from tests.servers.postgres import PostgresNode, empty_database
from tests.servers.redis import RedisNode
from tests.speed import limit

KEY = {"x-api-key": SERVICE_KEY}
DELETES_A_USER = "/api/chat/user"
"""The one route that may take a minute."""
NEED_NO_STORE = {
    "health",
    "live",
    "ttl",
    "tool-responses",
    "events",
    "transports",
    "models",
    "copilot",
    "agent-card.json",
}
REFUSED_FIRST = {"import", "agents", "a2a", "schedules", "00000000-0000-4000-8000-000000000000"}
"""Ends of paths that refuse the request before they ask Postgres: the test sends no body, and has no agent platform."""


async def test_without_postgres_every_endpoint_answers_503_and_recovers(
    private_postgres: PostgresNode, redis_dsn: str
) -> None:
    async with empty_database(private_postgres.dsn) as dsn:
        await migrate(dsn)
        async with running_api(dsn, redis_dsn, executor=False) as api:
            mine = api.as_user()
            session = await api.new_session(mine)
            await private_postgres.kill()
            task = "00000000-0000-4000-8000-000000000000"
            for method, path, body in (
                ("GET", "/sessions", None),
                ("POST", "/sessions", {}),
                ("GET", f"/sessions/{session}", None),
                ("PATCH", f"/sessions/{session}", {"title": "x"}),
                ("DELETE", f"/sessions/{session}", None),
                ("POST", f"/sessions/{session}/cancel", None),
                ("POST", f"/sessions/{session}/stream", {"message": "x"}),
                ("GET", f"/sessions/{session}/stream", None),
                ("GET", f"/tasks/{task}", None),
                ("GET", f"/tasks/{task}/stream", None),
                ("GET", "/api/library/agents", None),
                ("DELETE", f"/api/library/agents/{task}", None),
                (
                    "POST",
                    "",
                    {"id": new_id(), "messages": [{"role": "user", "parts": [{"type": "text", "text": "x"}]}]},
                ),
            ):
                prefix = "" if path.startswith("/api/") else "/api/chat"
                answer = await api.http.request(method, f"{prefix}{path}", json=body, headers=mine)
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), (method, path)
                assert int(answer.headers["retry-after"]) > 0
            assert (await api.http.get("/health/live")).status_code == 200
            assert (await api.http.get("/health/ready")).status_code == 503
            assert len(api.app.open_streams) == 0
            await private_postgres.start()
            async with asyncio.timeout(LIMIT):
                while (await api.http.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.1)
            rows = (await api.http.get(f"/api/chat/sessions/{session}", headers=mine)).json()
            assert (rows["messages"], rows["queued"]) == ([], [])


async def test_while_postgres_is_frozen_every_route_answers_in_time(
    private_postgres: PostgresNode, redis_dsn: str
) -> None:
    """Frozen is worse than away: connections are accepted and nothing answers. Senders of webhooks give up at 10 s."""
    async with empty_database(private_postgres.dsn) as dsn:
        await migrate(dsn)
        async with running_api(dsn, redis_dsn, executor=False, share_links=True) as api:
            mine, nowhere = api.as_user(), "00000000-0000-4000-8000-000000000000"
            session = await api.new_session(mine)
            ids = {
                "session_id": session,
                "version": "1",
                "delivery_id": f"evt_{'0' * 32}",
                "message_id": f"msg_{nowhere}",
                "model": "copilot",
                "share_token": "A" * 43,
            }
            document = (await api.http.get("/api/chat/openapi.json")).json()
            paths = {path: one for path, one in document["paths"].items() if path != DELETES_A_USER}
            named = {path: re.sub(r"{(\w+)}", lambda name: ids.get(name[1], nowhere), path) for path in paths}
            calls = [(method, named[path]) for path, one in paths.items() for method in one]
            private_postgres.freeze()
            try:
                async with asyncio.timeout(limit(8.0)):
                    answers = await asyncio.gather(*(_code(api, call, mine | KEY) for call in calls))
            finally:
                private_postgres.thaw()
            codes = dict(zip(calls, answers, strict=True))
            refused = {
                path.rpartition("/")[2] for (_, path), code in codes.items() if code not in ("200", "unavailable")
            }
            assert refused <= REFUSED_FIRST
            assert {path.rpartition("/")[2] for (_, path), code in codes.items() if code == "200"} == NEED_NO_STORE
            assert codes["post", f"/api/chat/operations/{nowhere}/complete"] == "unavailable"
            assert len(api.app.open_streams) == 0
            async with asyncio.timeout(LIMIT):
                while (await api.http.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.1)
            assert (await api.http.get("/api/chat/sessions", headers=mine)).status_code == 200


async def _code(api: RunningApi, call: tuple[str, str], headers: dict[str, str]) -> str:
    """Returns the code of an error, or the status. Does not read streams."""
    method, path = call
    params = {"q": "x"} if path.endswith("/search") else {}
    async with api.http.stream(method, path, params=params, json=_body(path), headers=headers) as answer:
        if answer.is_success:
            return str(answer.status_code)
        await answer.aread()
        body = answer.json()
        return str(body["code"] if "code" in body else body["error"]["code"])  # JSON-RPC has it elsewhere


def _body(path: str) -> dict[str, Any]:
    if path.endswith("/complete"):
        return {"success": True}
    if path == "/api/chat":
        return {"id": new_id(), "messages": [{"role": "user", "parts": [{"type": "text", "text": "x"}]}]}
    if path.endswith("/pinned"):
        return {"is_pinned": True}
    if path.endswith("/files"):
        return {"any": "text"}
    if "/folders" in path:
        return {"name": "x"}
    if path.endswith("/a2a"):
        return {"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": {"contextId": new_id()}}
    if path.endswith("/feedback"):
        return {"rating": "up"}
    if path.endswith(("/stream", "/pending")):
        return {"message": "x"}
    if path.endswith("/answer"):
        return {"answer": "x"}
    if path.endswith("/leaf"):
        return {"message_id": "x"}
    if path.endswith("/instructions"):
        return {"instructions": "x"}
    if path.endswith("/ag-ui"):
        return {"threadId": new_id(), "runId": "r", "messages": [{"role": "user", "content": "x"}]}
    if path.endswith("/webhooks"):
        return {"url": "https://example.com/"}
    if "/webhooks/" in path:
        return {"enabled": True}
    if path.endswith("/completions"):
        return {"model": "copilot", "messages": [{"role": "user", "content": "x"}]}
    return {"title": "x"} if path.count("/") == 4 or path.endswith("/title") else {}


async def test_without_redis_a_message_is_accepted_and_answered_later(
    postgres_dsn: str, private_redis: RedisNode
) -> None:
    async with running_api(postgres_dsn, private_redis.dsn) as api:
        mine = api.as_user()
        session = await api.new_session(mine)
        done = (await api.say(session, "/stream 2", mine)).chunks[0]["messageId"].removeprefix("msg_")
        await private_redis.kill()
        gone = await api.http.get(f"/api/chat/tasks/{done}/stream", headers=mine)
        assert (gone.status_code, gone.json()["code"]) == (503, "unavailable")
        body = {"message": "/stream 3", "message_id": "kept"}
        path = f"/api/chat/sessions/{session}/stream"
        async with api.http.stream("POST", path, json=body, headers=mine) as answer:
            assert answer.status_code == 200
        await private_redis.start()
        async with asyncio.timeout(LIMIT):
            while (await api.http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.1)
        answer, client = await api.read("POST", path, json=body, headers=mine, within=limit(60))
        assert answer.status_code == 200, answer.text
        assert client.text == "0 1 2 "


async def test_an_unexpected_error_is_a_problem_document_and_one_log_line(
    empty_postgres_dsn: str, redis_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    await migrate(empty_postgres_dsn)
    async with running_api(empty_postgres_dsn, redis_dsn, executor=False) as api:
        await execute(empty_postgres_dsn, "ALTER TABLE sessions RENAME TO elsewhere")
        answer = await api.http.post("/api/chat/sessions", json={})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["code"] == "internal_error"
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["request failed"]
