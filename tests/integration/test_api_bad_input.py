"""Every row of bad input that concerns a JSON endpoint, and what all endpoints have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.integration.running_api import RunningApi, new_id, running_api

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as resources:
        yield resources


def is_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "code", "detail", "request_id"} <= set(body)
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/chat/sessions"),
        ("POST", "/api/chat/sessions"),
        ("GET", "/api/chat/sessions/{id}"),
        ("DELETE", "/api/chat/sessions/{id}"),
        ("GET", "/api/chat/sessions/{id}/stream"),
        ("POST", "/api/chat"),
        ("GET", "/api/chat/events"),
        ("GET", "/api/library/agents"),
    ],
)
async def test_an_unknown_query_parameter_is_refused(api: RunningApi, method: str, path: str) -> None:
    known = {"limit": 1} if path.endswith(("sessions", "agents")) and method == "GET" else {}
    query = {**known, "befor": 3, "Limit": "x"}
    answer = await api.http.request(method, path.format(id=await api.new_session()), params=query)
    is_problem(answer, 422, "unknown_field")
    assert [field["path"] for field in answer.json()["fields"]] == ["query.befor", "query.Limit"]


async def test_a_probe_may_ask_with_any_query(api: RunningApi) -> None:
    assert (await api.http.get("/health/live", params={"at": 7})).status_code == 200


BODIES: list[tuple[str, bytes, int, str]] = [
    ("truncated", b'{"message": "x"', 400, "invalid_json"),
    ("invalid UTF-8", b'{"message": "\xff"}', 400, "invalid_json"),
    ("lone surrogate", rb'{"message": "\ud800"}', 422, "invalid_unicode"),
    ("NUL", rb'{"message": "a\u0000b"}', 422, "invalid_unicode"),
    ("900 deep", b'{"metadata": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}", 422, "too_deep"),
    ("5,000 deep", b"[" * 5_000 + b"]" * 5_000, 422, "too_deep"),
    ("NaN", b'{"metadata": {"a": NaN}}', 422, "invalid_number"),
    ("Infinity", b'{"metadata": {"a": -Infinity}}', 422, "invalid_number"),
    ("1e999", b'{"metadata": {"a": 1e999}}', 422, "invalid_number"),
    ("5,000 digits", b'{"metadata": {"a": ' + b"1" * 5_000 + b"}}", 422, "invalid_number"),
    ("duplicate keys", b'{"message": "x", "message": "y"}', 400, "duplicate_key"),
    ("array", b"[]", 422, "validation_error"),
    ("string", b'"x"', 422, "validation_error"),
]
ENDPOINTS = [
    ("POST", "/api/chat/sessions"),
    ("PATCH", "/api/chat/sessions/{id}"),
    ("POST", "/api/chat/sessions/{id}/stream"),
    ("POST", "/api/chat"),
]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
@pytest.mark.parametrize(("body", "status", "code"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
async def test_an_unreadable_body_is_refused(
    api: RunningApi, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    answer = await api.http.request(method, path.format(id=new_id()), content=body, headers=JSON)
    is_problem(answer, status, code)


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data", "json"])
async def test_a_body_of_another_content_type_is_refused(api: RunningApi, method: str, path: str, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = await api.http.request(method, path.format(id=new_id()), content=b"{}", headers=headers)
    is_problem(answer, 415, "unsupported_media_type")


async def test_a_charset_beside_the_content_type_is_accepted(api: RunningApi) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await api.http.post("/api/chat/sessions", content=b"{}", headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/api/chat/sessions", "/api/chat/sessions/{id}", "/api/chat/sessions/{id}/stream"])
async def test_unknown_fields_are_refused(api: RunningApi, path: str) -> None:
    method = "PATCH" if path.endswith("{id}") else "POST"
    body = {"title": "x", "message": "x", "surprise": 1}
    answer = await api.http.request(method, path.format(id=new_id()), json=body)
    is_problem(answer, 422, "unknown_field")


async def test_missing_and_unknown_fields_are_reported_together(api: RunningApi) -> None:
    answer = await api.http.post(f"/api/chat/sessions/{new_id()}/stream", json={"msg": "x"})
    is_problem(answer, 422, "validation_error")
    assert {field["path"] for field in answer.json()["fields"]} == {"body.message", "body.msg"}


async def test_an_invalid_body_is_answered_with_a_readable_problem(api: RunningApi) -> None:
    array = await api.http.post(f"/api/chat/sessions/{new_id()}/stream", json=[])
    assert array.json()["fields"][0]["message"] == "Input should be a JSON object"
    for answer in (
        await api.http.get("/api/chat/sessions/nope"),
        await api.http.post("/api/chat/sessions", json={"id": "nope"}),
        await api.http.post("/api/chat", json={"id": "nope", "messages": []}),
    ):
        assert "16 to 64 characters" in answer.json()["fields"][0]["message"]
    nothing = await api.http.post("/api/chat", json={"id": new_id(), "messages": []})
    assert "no message of the user" in nothing.json()["detail"]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS[1:])
@pytest.mark.parametrize("body", [b"", b"null"])
async def test_a_missing_body_is_refused(api: RunningApi, method: str, path: str, body: bytes) -> None:
    answer = await api.http.request(method, path.format(id=new_id()), content=body, headers=JSON)
    is_problem(answer, 422, "validation_error")


async def test_a_body_over_the_limit_is_refused(api: RunningApi) -> None:
    body = b'{"message": "' + b"x" * 1_048_576 + b'"}'
    answer = await api.http.post("/api/chat/sessions", content=body, headers=JSON)
    is_problem(answer, 413, "payload_too_large")
    assert "the limit is 1048576 bytes" in answer.json()["detail"]


async def test_unknown_paths_and_methods_are_refused(api: RunningApi) -> None:
    for path in ("/nothing", "/api/chat/nothing", "/api/chat/sessions/", "/api/chat/sessions/x/y/z", "/docs", "/redoc"):
        is_problem(await api.http.get(path), 404, "not_found")
    wrong = await api.http.put("/api/chat/sessions", json={})
    is_problem(wrong, 405, "method_not_allowed")
    assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    is_problem(await api.http.delete("/api/chat/health"), 405, "method_not_allowed")
    is_problem(await api.http.request("OPTIONS", "/api/chat/sessions"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "id", ["short", "x" * 65, "has.dots.in.it.and.more", "..%2f..%2f..%2fetc%2fpasswd", "%00" * 20, "ä" * 20]
)
async def test_an_invalid_session_id_is_refused(api: RunningApi, id: str) -> None:
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("PATCH", "/assign-user"),
        ("GET", "/stream"),
    ):
        answer = await api.http.request(method, f"/api/chat/sessions/{id}{path}", headers=api.as_user())
        assert answer.status_code in (404, 422)
        assert answer.json()["code"] in ("validation_error", "not_found")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "limit=1e9", "offset=-1", "offset=99999999999999999999", "q=" + "x" * 201],
)
async def test_an_invalid_limit_or_offset_is_refused(api: RunningApi, query: str) -> None:
    is_problem(await api.http.get(f"/api/chat/sessions?{query}", headers=api.as_user()), 422, "validation_error")


@pytest.mark.parametrize("query", ["q=%00", "q=a%00b", "%00=1"])
async def test_a_nul_in_a_query_is_refused(api: RunningApi, query: str) -> None:
    is_problem(await api.http.get(f"/api/chat/sessions?{query}", headers=api.as_user()), 422, "invalid_unicode")


@pytest.mark.parametrize("query", ["q=%ff%fe", "q=%ed%a0%80", "q=%25_%5c", "q='%3b--", "q=%F0%9F%98%80", "q="])
async def test_odd_searches_find_nothing_and_break_nothing(api: RunningApi, query: str) -> None:
    answer = await api.http.get(f"/api/chat/sessions?{query}", headers=api.as_user())
    assert (answer.status_code, answer.json()["sessions"]) == (200, [])


@pytest.mark.parametrize("title", ["", "   ", "x" * 201, 1, None])
async def test_an_invalid_title_is_refused(api: RunningApi, title: object) -> None:
    id = await api.new_session()
    is_problem(await api.http.patch(f"/api/chat/sessions/{id}", json={"title": title}), 422, "validation_error")
