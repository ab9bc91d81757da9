"""Tests of the API apart from conversations: health, metrics, the page, CORS, the schema and the log."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from jsonschema import Draft202012Validator

from backend.chat.protocol.tool_responses import ErrorResponse
from backend.ids import new_task_id
from tests.integration.running_api import RunningApi, new_id, running_api
from tests.servers.redis import RedisNode


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as resources:
        yield resources


async def test_health_is_the_same_under_the_prefix_and_at_the_root(api: RunningApi) -> None:
    for prefix in ("", "/api/chat"):
        health = (await api.http.get(f"{prefix}/health")).json()
        assert health["status"] == "ok"
        assert set(health) == {"status", "service", "version"}
        assert (await api.http.get(f"{prefix}/health/live")).json() == {"status": "ok"}
        ready = await api.http.get(f"{prefix}/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert set(ready.json()["checks"]) == {"postgres", "redis", "hub", "turns", "clock", "completions"}


async def test_without_redis_the_api_is_not_ready_and_names_redis(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with running_api(postgres_dsn, private_redis.dsn, executor=False) as api:
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


async def test_metrics_count_requests_by_route(api: RunningApi) -> None:
    await api.http.get(f"/api/chat/sessions/{new_id()}")
    text = (await api.http.get("/metrics")).text
    assert 'http_requests_total{method="GET",route="/api/chat/sessions/{session_id}",status="404"}' in text
    assert "sse_open_streams 0.0" in text


async def test_failed_requests_of_every_route_begin_at_0(api: RunningApi) -> None:
    """Prometheus sees no increase in a series that begins with its first failure."""
    for path in ("/", "/health/ready", "/api/chat/health/ready", "/api/chat/sessions", "/api/library/agents"):
        await api.http.get(path)
    await api.http.post("/api/chat/sessions", json={})
    text = (await api.http.get("/metrics")).text
    counted = re.findall(r'http_requests_total\{method="(?!HEAD)(\w+)",route="([^"]+)",status="(\d+)"\}', text)
    routes = {(method, route) for method, route, _ in counted if route != "unknown"}
    assert {("POST", "/api/chat"), ("GET", "/api/chat/health/ready"), ("GET", "/")} < routes
    assert {(*route, status) for route in routes for status in ("500", "503")} <= set(counted)


async def test_the_try_page_loads_only_its_own_files(api: RunningApi) -> None:
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
async def test_allowed_origins_may_read(api: RunningApi, origin: str) -> None:
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


@pytest.mark.parametrize("origin", ["https://chat.example.com", "https://evil.example", "null"])
async def test_everyone_may_read_the_files_of_the_page(api: RunningApi, origin: str) -> None:
    """Two such headers would forbid it, and a cache answers one origin with what it kept of another."""
    answer = await api.http.get("/assets/x.js", headers={"origin": origin})
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]


async def test_a_page_may_send_headers_of_tracing_and_those_that_are_set(postgres_dsn: str, redis_dsn: str) -> None:
    origin = {"origin": "https://chat.example.com", "access-control-request-method": "POST"}
    changes: dict[str, Any] = {"cors_headers": "X-Csrf-Token, x-tenant", "cors_credentials": True}
    async with running_api(postgres_dsn, redis_dsn, executor=False, **changes) as api:
        preflight = await api.http.options("/api/chat", headers=origin)
        allowed = {name.strip() for name in preflight.headers["access-control-allow-headers"].split(",")}
        assert {"sentry-trace", "baggage", "traceparent", "user-agent", "x-csrf-token", "x-tenant"} <= allowed
        answer = await api.http.get("/api/chat/sessions", headers=origin)
        for one in (preflight, answer):
            assert one.headers["access-control-allow-credentials"] == "true"
        other = await api.http.get("/api/chat/sessions", headers={"origin": "https://evil.example"})
        assert "access-control-allow-credentials" not in other.headers


async def test_cookies_are_not_taken_from_pages_unless_that_is_set(api: RunningApi) -> None:
    answer = await api.http.get("/api/chat/sessions", headers={"origin": "https://chat.example.com"})
    assert "access-control-allow-credentials" not in answer.headers


async def test_every_route_that_answers_get_answers_head(api: RunningApi) -> None:
    """Uptime monitors ask by HEAD."""
    id = await api.new_session()
    paths = [context.path or "" for context in iter_route_contexts(api.app.routes) if "GET" in (context.methods or ())]
    known_ids = {"session_id": id, "task_id": new_task_id(), "webhook_id": new_task_id(), "version": "1"}
    for path in paths:
        known = re.sub(r"{(\w+)(:path)?}", lambda name: known_ids.get(name[1], "x"), path)
        if path.endswith(("/stream", "/events")):
            continue  # tested with the streams
        got, head = await api.http.get(known), await api.http.head(known)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path
    assert {"/", "/health/ready", "/metrics", "/api/chat/health", "/api/chat/sessions/{session_id}"} <= set(paths)


@pytest.mark.parametrize(
    "origin",
    ["null", "https://evil.example", "http://chat.example.com", "https://chat.example.com.evil.example",
     "https://sub.chat.example.com", "https://chat.example.com:8443", "https://xchat.example.com"],
)  # fmt: skip
async def test_other_origins_may_not_read(api: RunningApi, origin: str) -> None:
    for method in ("GET", "OPTIONS"):
        headers = {"origin": origin, "access-control-request-method": "GET"}
        answer = await api.http.request(method, "/api/chat/sessions", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["vary"] == "Origin"


async def test_a_tool_response_is_valid_under_the_published_schema(api: RunningApi) -> None:
    schema = (await api.http.get("/api/chat/schema/tool-responses")).json()
    Draft202012Validator.check_schema(schema)
    named = {one["properties"]["type"]["const"] for one in schema["$defs"].values() if "type" in one["properties"]}
    assert len(named) == 35
    assert {"operation_started", "agent_saved", "web_fetch", "feature_request_created"} <= named
    response = ErrorResponse(message="no", error="x").model_dump(mode="json", exclude_none=True)
    assert Draft202012Validator(schema).is_valid(response)
    assert not Draft202012Validator(schema).is_valid({"type": "unknown", "message": ""})


async def test_the_ttl_of_streams_is_published(api: RunningApi) -> None:
    ttl = (await api.http.get("/api/chat/config/ttl")).json()
    assert ttl == {"stream_ttl_seconds": 3600, "stream_ttl_ms": 3_600_000}


async def test_a_request_is_logged_in_one_line_without_secrets(
    api: RunningApi, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await api.http.post(
            "/api/chat/sessions",
            json={"metadata": {"a": "canary-body"}},
            headers={"x-api-key": "canary-key", **api.as_user("canary-user")},
        )
        await api.http.get("/api/chat/sessions?q=canary-query")
    lines = [record for record in caplog.records if record.name == "backend.api.middleware"]
    assert len(lines) == 2
    assert (lines[0].method, lines[0].path, lines[0].status) == ("POST", "/api/chat/sessions", 200)  # type: ignore[attr-defined]
    application_records = [record for record in caplog.records if not record.name.startswith("http")]
    assert "canary" not in "".join(str(vars(record)) for record in application_records)
