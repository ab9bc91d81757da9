"""What stands around the conversations: health, metrics, the page, CORS, the schema, the log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from jsonschema import Draft202012Validator

from backend.chat.tool_responses import ErrorResponse
from tests.integration.api_house import ApiHouse, api_house, new_id
from tests.servers.redis import RedisNode


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[ApiHouse]:
    async with api_house(postgres_dsn, redis_dsn, executor=False) as house:
        yield house


async def test_health_is_the_same_under_the_prefix_and_at_the_root(api: ApiHouse) -> None:
    for prefix in ("", "/api/chat"):
        health = (await api.http.get(f"{prefix}/health")).json()
        assert health["status"] == "ok"
        assert set(health) == {"status", "service", "version"}
        assert (await api.http.get(f"{prefix}/health/live")).json() == {"status": "ok"}
        ready = await api.http.get(f"{prefix}/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert set(ready.json()["checks"]) == {"postgres", "redis", "hub", "turns", "completions"}


async def test_without_redis_it_is_not_ready_and_says_what_is_away(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with api_house(postgres_dsn, private_redis.dsn, executor=False) as api:
        assert (await api.http.get("/health/ready")).status_code == 200
        await private_redis.kill()
        ready = await api.http.get("/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "unavailable")
        assert ready.json()["checks"]["redis"] is False
        assert ready.json()["checks"]["postgres"] is True
        assert "retry-after" in ready.headers
        session = await api.new_session()
        assert (await api.http.get(f"/api/chat/sessions/{session}")).status_code == 200
        await private_redis.start()


async def test_metrics_count_requests_by_route(api: ApiHouse) -> None:
    await api.http.get(f"/api/chat/sessions/{new_id()}")
    text = (await api.http.get("/metrics")).text
    assert 'http_requests_total{method="GET",route="/api/chat/sessions/{session_id}",status="404"}' in text
    assert "sse_open_streams 0.0" in text


async def test_the_plain_form_runs_its_own_files_only(api: ApiHouse) -> None:
    page = await api.http.get("/try")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "<form" in page.text
    assert " style=" not in page.text
    assert "<script>" not in page.text
    for name, kind in (("/try.js", "text/javascript"), ("/try.css", "text/css")):
        asset = await api.http.get(name)
        assert asset.headers["content-type"].startswith(kind)
        assert name in page.text


@pytest.mark.parametrize("origin", ["https://chat.example.com", "http://localhost:5173"])
async def test_our_origins_may_read(api: ApiHouse, origin: str) -> None:
    id = await api.new_session()
    for answer in (
        await api.http.get("/api/chat/sessions", headers={"origin": origin}),
        await api.http.get("/api/chat/sessions/short", headers={"origin": origin}),
        await api.http.get(f"/api/chat/sessions/{id}/stream", headers={"origin": origin}),
    ):
        assert answer.headers["access-control-allow-origin"] == origin
        assert "x-resumable-stream-id" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"
    asking = {"origin": origin, "access-control-request-method": "POST"}
    preflight = await api.http.options("/api/chat", headers=asking)
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "last-event-id" in preflight.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "origin",
    ["null", "https://evil.example", "http://chat.example.com", "https://chat.example.com.evil.example",
     "https://sub.chat.example.com", "https://chat.example.com:8443", "https://xchat.example.com"],
)  # fmt: skip
async def test_no_other_origin_may(api: ApiHouse, origin: str) -> None:
    for method in ("GET", "OPTIONS"):
        headers = {"origin": origin, "access-control-request-method": "GET"}
        answer = await api.http.request(method, "/api/chat/sessions", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["vary"] == "Origin"


async def test_the_schema_of_tool_responses_holds_for_one(api: ApiHouse) -> None:
    schema = (await api.http.get("/api/chat/schema/tool-responses")).json()
    Draft202012Validator.check_schema(schema)
    named = {one["properties"]["type"]["const"] for one in schema["$defs"].values() if "type" in one["properties"]}
    assert len(named) == 32
    assert {"operation_started", "agent_saved", "web_fetch", "feature_request_created"} <= named
    response = ErrorResponse(message="no", error="x").model_dump(mode="json", exclude_none=True)
    assert Draft202012Validator(schema).is_valid(response)
    assert not Draft202012Validator(schema).is_valid({"type": "unheard_of", "message": ""})


async def test_the_ttl_is_told(api: ApiHouse) -> None:
    told = (await api.http.get("/api/chat/config/ttl")).json()
    assert told == {"stream_ttl_seconds": 3600, "stream_ttl_ms": 3_600_000}


async def test_a_request_is_one_line_of_log_without_secrets(api: ApiHouse, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await api.http.post(
            "/api/chat/sessions?q=canary-query",
            json={"metadata": {"a": "canary-body"}},
            headers={"x-api-key": "canary-key", **api.as_user("canary-user")},
        )
    lines = [record for record in caplog.records if record.name == "backend.api.door"]
    assert len(lines) == 1
    assert (lines[0].method, lines[0].path, lines[0].status) == ("POST", "/api/chat/sessions", 201)  # type: ignore[attr-defined]
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    assert "canary" not in "".join(str(vars(record)) for record in ours)
