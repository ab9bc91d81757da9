"""Tests of the bytes on the wire: the ends of streams, and the answers to slow or invalid clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from backend.api.timeouts import Timeouts
from backend.api.tokens import LEEWAY
from backend.chat.flows import delete
from backend.chat.models import Caller
from backend.ids import SessionId
from tests.integration.running_api import LIMIT, RunningApi, get, post, running_api, send_raw, token
from tests.speed import limit

LAST_CHUNK = b"\r\n0\r\n\r\n"
QUICK = Timeouts(
    heartbeat_every=0.2, send_timeout=limit(2), tick=0.05, head_timeout=limit(0.8), body_timeout=limit(0.8)
)
"""Short timeouts that do not drop good clients on a slow machine."""


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, timeouts=QUICK, max_body_bytes=20_000) as resources:
        yield resources


async def test_a_finished_stream_ends_cleanly(api: RunningApi) -> None:
    id = await api.new_session()
    answer = await send_raw(
        api.port, post(f"/api/chat/sessions/{id}/stream", b'{"message":"hi"}'), until=b"\r\n0\r\n\r\n"
    )
    assert not answer.closed
    assert b"\r\n: stream-open\n\n" in answer.data
    assert b"data: [DONE]\n\n" in answer.data


async def test_a_quiet_stream_has_heartbeats(api: RunningApi) -> None:
    id = await api.new_session()
    request = post(f"/api/chat/sessions/{id}/stream", b'{"message":"/stream 2 1500"}')
    answer = await send_raw(api.port, request, until=LAST_CHUNK)
    assert answer.data.count(b": keep-alive\n\n") >= 3
    assert b"data: [DONE]\n\n" in answer.data


async def test_a_stopping_server_aborts_its_streams(postgres_dsn: str, redis_dsn: str) -> None:
    async with running_api(postgres_dsn, redis_dsn, timeouts=QUICK) as api:
        id = await api.new_session()
        request = post(f"/api/chat/sessions/{id}/stream", b'{"message":"/stream 2000 50"}')
        reading = asyncio.create_task(send_raw(api.port, request))
        async with asyncio.timeout(LIMIT):
            while not len(api.app.open_streams):
                await asyncio.sleep(0.02)
        api.server.should_exit = True
        answer = await reading
        assert answer.closed
        assert answer.status == 200
        assert not answer.data.endswith(b"0\r\n\r\n")
        assert b"[DONE]" not in answer.data
        await _delete(api, id)


async def test_a_dropped_stream_is_aborted_without_a_clean_end(api: RunningApi) -> None:
    id = await api.new_session()
    reading = asyncio.create_task(
        send_raw(api.port, post(f"/api/chat/sessions/{id}/stream", b'{"message":"/stream 2000 50"}'))
    )
    async with asyncio.timeout(LIMIT):
        while not (open_now := list(api.app.open_streams)):
            await asyncio.sleep(0.02)
    for stream in open_now:
        stream.drop()
    answer = await reading
    assert answer.closed
    assert not answer.data.endswith(b"0\r\n\r\n")
    await _delete(api, id)


async def _delete(api: RunningApi, session: str) -> None:
    """Deletes the session and ends its turns, even if its server has stopped."""
    await delete.delete_session(api.resources, Caller(None, "192.0.2.9"), SessionId(session))


async def test_a_stream_ends_when_its_token_expires(api: RunningApi) -> None:
    mine = f"authorization: Bearer {token('expiring', lives=limit(2) - LEEWAY)}"
    made = await send_raw(
        api.port, post("/api/chat/sessions", b'{"id":"a-session-of-someone-expiring"}', mine), until=b"}"
    )
    assert made.status in (200, 201)
    request = post("/api/chat/sessions/a-session-of-someone-expiring/stream", b'{"message":"/stream 1000 100"}', mine)
    answer = await send_raw(api.port, request)
    assert answer.closed
    assert b'data: {"type":"data-error","data":{"code":"token_expired"' in answer.data
    assert b'data: {"type":"error","errorText":' in answer.data
    assert not answer.data.endswith(b"0\r\n\r\n")
    again = await send_raw(api.port, get("/api/chat/sessions/a-session-of-someone-expiring/stream", mine), until=b"}")
    assert (again.status, again.code) == (401, "unauthenticated")


async def test_a_body_over_the_limit_is_refused_before_it_is_read(api: RunningApi) -> None:
    head = "\r\n".join(
        ["POST /api/chat/sessions HTTP/1.1", "host: x", "content-type: application/json", "content-length: 20001"]
    )
    answer = await send_raw(api.port, head.encode() + b"\r\n\r\n")
    assert (answer.status, answer.code, answer.closed) == (413, "payload_too_large", True)
    assert b"connection: close" in answer.head


async def test_a_chunked_body_over_the_limit_is_refused_and_the_connection_closed(api: RunningApi) -> None:
    head = "\r\n".join(
        ["POST /api/chat/sessions HTTP/1.1", "host: x", "content-type: application/json", "transfer-encoding: chunked"]
    )
    piece = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    answer = await send_raw(api.port, head.encode() + b"\r\n\r\n" + piece * 2)
    assert (answer.status, answer.code, answer.closed) == (413, "payload_too_large", True)


async def test_a_body_that_never_ends_times_out(api: RunningApi) -> None:
    head = "\r\n".join(
        ["POST /api/chat/sessions HTTP/1.1", "host: x", "content-type: application/json", "content-length: 10"]
    )
    answer = await send_raw(api.port, head.encode() + b"\r\n\r\n{")
    assert (answer.status, answer.code, answer.closed) == (408, "request_timeout", True)


@pytest.mark.parametrize("head", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
async def test_a_head_that_never_ends_times_out(api: RunningApi, head: bytes) -> None:
    answer = await send_raw(api.port, head)
    assert (answer.data, answer.closed) == (b"", True)


async def test_an_incomplete_second_head_on_a_connection_times_out(api: RunningApi) -> None:
    answer = await send_raw(api.port, get("/api/chat/health") + b"GET / HTTP/1.1\r\nhost: x\r\n")
    assert answer.closed
    assert answer.status == 200


async def test_bytes_that_are_not_http_get_a_problem_document(api: RunningApi) -> None:
    answer = await send_raw(api.port, b"\x16\x03\x01 hello\r\n\r\n")
    assert (answer.status, answer.code, answer.closed) == (400, "bad_request", True)


async def test_the_size_is_checked_before_the_token_and_the_token_before_the_body(api: RunningApi) -> None:
    bad = "authorization: Bearer nonsense"
    head = "POST /api/chat/sessions HTTP/1.1\r\nhost: x\r\n"
    too_long = await send_raw(api.port, (head + f"{bad}\r\ncontent-length: 20001\r\n\r\n").encode())
    assert too_long.status == 413
    unread = await send_raw(api.port, (head + f"{bad}\r\ncontent-length: 10\r\n\r\n").encode(), until=b"}")
    assert (unread.status, unread.code) == (401, "unauthenticated")
    kind = await send_raw(api.port, post("/api/chat/sessions", b"nonsense", kind="text/plain"), until=b"}")
    assert (kind.status, kind.code) == (415, "unsupported_media_type")


async def test_clients_that_connect_and_disconnect_leave_no_stream_behind(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    authorization = f"authorization: {mine['authorization']}"
    body = b'{"message":"/stream 100000 20","message_id":"m"}'
    await send_raw(api.port, post(f"/api/chat/sessions/{id}/stream", body, authorization), until=b"stream-open")
    for _ in range(100):
        await send_raw(api.port, get(f"/api/chat/sessions/{id}/stream", authorization), until=b"stream-open")
        with suppress(TimeoutError):
            async with asyncio.timeout(LIMIT):
                while len(api.app.open_streams) > 4:
                    await asyncio.sleep(0.02)
    async with asyncio.timeout(LIMIT):
        while len(api.app.open_streams):
            await asyncio.sleep(0.02)
    await api.http.post(f"/api/chat/sessions/{id}/cancel", headers=mine)
    left = [job for job in asyncio.all_tasks() if "EventStream" in repr(job.get_coro())]
    assert left == []
