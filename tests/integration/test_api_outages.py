"""A store goes away under the API: 503 and nothing half-written, and all is well when it is back."""

from __future__ import annotations

import asyncio

import pytest

from backend.migrating import migrate
from tests.integration.api_house import LIMIT, api_house, new_id
from tests.integration.catalog import execute
from tests.servers.postgres import PostgresNode, empty_database
from tests.servers.redis import RedisNode
from tests.speed import limit


async def test_without_postgres_every_endpoint_says_so_and_recovers(
    private_postgres: PostgresNode, redis_dsn: str
) -> None:
    async with empty_database(private_postgres.dsn) as dsn:
        await migrate(dsn)
        async with api_house(dsn, redis_dsn, executor=False) as api:
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


async def test_without_redis_a_message_is_taken_and_answered_later(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with api_house(postgres_dsn, private_redis.dsn) as api:
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


async def test_what_nobody_expected_is_a_problem_document_and_one_line(
    empty_postgres_dsn: str, redis_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    await migrate(empty_postgres_dsn)
    async with api_house(empty_postgres_dsn, redis_dsn, executor=False) as api:
        await execute(empty_postgres_dsn, "ALTER TABLE sessions RENAME TO elsewhere")
        answer = await api.http.post("/api/chat/sessions", json={})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["code"] == "internal_error"
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["request failed"]
