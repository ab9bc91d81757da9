"""Streams over HTTP: turns, resuming, cancelling, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from backend.chat import keys
from backend.chat.flows import start
from backend.chat.models import NewMessage, Role, TextPart, TurnRequest
from backend.chat.store import branches, messages
from backend.ids import SessionId, StreamId, TaskId, new_task_id
from backend.postgres import Connection
from tests.integration.rows import new_user
from tests.integration.running_api import LIMIT, RunningApi, new_id, running_api
from tests.sse_client import StrictClient


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as resources:
        yield resources


async def test_a_message_gets_a_streamed_answer(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    answer, client = await api.read(
        "POST", f"/api/chat/sessions/{id}/stream", json={"message": "/stream 50"}, headers=mine
    )
    assert answer.status_code == 200
    assert client.done
    assert client.text == "".join(f"{n} " for n in range(50))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    task_id = answer.headers["x-resumable-stream-id"]
    assert client.chunks[0]["messageId"] == f"msg_{task_id}"
    assert client.chunks[-1]["messageMetadata"]["status"] == "completed"
    task = (await api.http.get(f"/api/chat/tasks/{task_id}", headers=mine)).json()
    assert (task["status"], task["session_id"], task["kind"]) == ("completed", id, "turn")


async def test_the_first_byte_is_a_comment_that_waits_for_nothing(api: RunningApi) -> None:
    id = await api.new_session()
    async with api.http.stream("POST", f"/api/chat/sessions/{id}/stream", json={"message": "/stream 3 500"}) as answer:
        first = await anext(answer.aiter_raw())
        assert first.startswith(b": stream-open\n\n")


async def test_a_stream_resumes_from_every_cursor_and_replays_without_one(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    answer, whole = await api.read(
        "POST", f"/api/chat/sessions/{id}/stream", json={"message": "/stream 20 1"}, headers=mine
    )
    task_id = answer.headers["x-resumable-stream-id"]
    paths = (f"/api/chat/tasks/{task_id}/stream", f"/api/chat/sessions/{id}/stream", f"/api/chat/{id}/stream")
    for cursor in whole.ids[:-1]:
        for path in paths:
            tail = StrictClient(cursor=cursor)
            raw = b""
            async with api.http.stream("GET", path, headers={**mine, "last-event-id": str(cursor)}) as resumed:
                assert resumed.status_code == 200
                async for data in resumed.aiter_raw():
                    raw += data
            assert b"[DONE]" in raw
            assert raw.count(b'"type":"finish"') == 1
            assert f"id: {cursor}\n".encode() not in raw
            del tail
    at_end = await api.http.get(paths[0], headers={**mine, "last-event-id": str(whole.ids[-1])})
    assert at_end.status_code == 204
    by_query = await api.http.get(paths[1], params={"last_message_id": str(whole.ids[-1])}, headers=mine)
    assert by_query.status_code == 204
    for cursor in ("0", "0-0", None):
        given = {"last-event-id": cursor} if cursor is not None else {}
        _, again = await api.read("GET", paths[0], headers={**mine, **given})
        assert again.text == whole.text
        assert again.parts == whole.parts


async def test_a_session_in_which_nothing_runs_is_a_204_even_if_it_does_not_exist(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    for path in (f"/api/chat/sessions/{id}/stream", f"/api/chat/{id}/stream"):
        assert (await api.http.get(path, headers=mine)).status_code == 204
        assert (await api.http.get(path, headers=api.as_user())).status_code == 204
        assert (await api.http.get(path, headers={"last-event-id": "5-5"})).status_code == 204
    assert (await api.http.get(f"/api/chat/{new_id()}/stream")).status_code == 204


async def test_an_answer_that_stores_a_step_during_the_request_is_running(
    postgres_dsn: str, redis_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        id = SessionId(new_id())
        turn = TurnRequest("hello")
        started = await start.start_turn(api.resources, new_user(), id, turn, message_key=None, create_session=True)
        leaf_of = branches.leaf_of

        async def store_a_step_and_find(c: Connection, session_id: SessionId) -> int:
            async with api.resources.database.connection() as other:
                said = [NewMessage(Role.ASSISTANT, (TextPart("so"),))]
                await messages.append_messages(other, id, started.task.id, 1, said)
            return await leaf_of(c, session_id)

        monkeypatch.setattr(branches, "leaf_of", store_a_step_and_find)
        mine = api.as_user(started.task.user_id)
        assert (await api.http.head(f"/api/chat/{id}/stream", headers=mine)).status_code == 200


@pytest.mark.parametrize(
    "cursor", ["garbage", "1", "1-", "-1-1", "1-1-1", "$", ">", "+", "-", "1" * 10_000, f"{2**64}-1", "1-1 ", "١-١"]
)
async def test_an_invalid_cursor_is_refused_and_not_echoed(api: RunningApi, cursor: str) -> None:
    id = await api.new_session()
    for path in (f"/api/chat/sessions/{id}/stream", f"/api/chat/tasks/{new_task_id()}/stream"):
        answer = await api.http.get(path, params={"last_message_id": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")
        assert cursor not in answer.text or len(cursor) < 3


async def test_a_cursor_that_cannot_be_served_is_gone(api: RunningApi) -> None:
    mine = api.as_user()
    one, other = await api.new_session(mine), await api.new_session(mine)
    first, second = await api.say(one, "hello", mine), await api.say(other, "hello", mine)
    for cursor in (second.cursor, StreamId(10**17, 1), StreamId(first.cursor.fence, first.cursor.seq + 1000)):
        answer = await api.http.get(f"/api/chat/sessions/{one}/stream", headers={**mine, "last-event-id": str(cursor)})
        assert (answer.status_code, answer.json()["code"]) == (410, "cursor_expired"), cursor


async def test_an_ended_task_whose_stream_is_gone_says_so(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    client = await api.say(id, "hello", mine)
    task_id = client.chunks[0]["messageId"].removeprefix("msg_")
    await api.resources.streams.delete(keys.stream_key(SessionId(id), task_id))
    gone = await api.http.get(f"/api/chat/tasks/{task_id}/stream", headers=mine)
    assert (gone.status_code, gone.json()["code"]) == (410, "task_expired")
    late = await api.http.get(
        f"/api/chat/tasks/{task_id}/stream", headers={**mine, "last-event-id": str(client.ids[0])}
    )
    assert (late.status_code, late.json()["code"]) == (410, "cursor_expired")


def outputs_of(client: StrictClient) -> dict[str, object]:
    """Calls that ran side by side end in any order."""
    return {c["toolCallId"]: c for c in client.chunks if c["type"] == "tool-output-available"}


@pytest.mark.parametrize("text", ["/say hello", '/tool add_understanding {"name":"Ada"}\n/tool no_such {}', "/fail"])
async def test_the_same_message_id_gets_the_whole_answer_even_when_its_stream_is_gone(
    api: RunningApi, text: str
) -> None:
    mine, id = api.as_user(), new_id()
    body = {"id": id, "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": text}]}]}
    first_answer, first = await api.read("POST", "/api/chat", json=body, headers=mine)
    task_id = TaskId(first_answer.headers["x-resumable-stream-id"])
    await api.resources.streams.delete(keys.stream_key(SessionId(id), task_id))
    repeats = (
        ("/api/chat", body),
        ("/api/chat", {**body, "messageId": "m1"}),
        (f"/api/chat/sessions/{id}/stream", {"message": text, "message_id": "m1"}),
    )
    for path, again in repeats:
        answer, client = await api.read("POST", path, json=again, headers=mine)
        assert (answer.status_code, client.done) == (200, True), answer.text
        assert answer.headers["x-resumable-stream-id"] == task_id
        assert client.text == first.text
        assert client.ids == []
        for kind in ("start", "finish"):
            assert [c for c in client.chunks if c["type"] == kind] == [c for c in first.chunks if c["type"] == kind]
        assert outputs_of(client) == outputs_of(first)
        assert client.chunks[-2:] == first.chunks[-2:]


async def test_the_same_message_id_is_one_turn_however_often_it_is_sent(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    body = {"message": "/stream 5 5", "message_id": "the-same"}
    path = f"/api/chat/sessions/{id}/stream"
    answers = await asyncio.gather(*(api.read("POST", path, json=body, headers=mine) for _ in range(5)))
    assert {answer.status_code for answer, _ in answers} == {200}
    assert len({answer.headers["x-resumable-stream-id"] for answer, _ in answers}) == 1
    assert {client.text for _, client in answers} == {"0 1 2 3 4 "}
    _, client = await api.read(
        "POST", path, json={"message": "/stream 5 5"}, headers={**mine, "idempotency-key": "the-same"}
    )
    assert client.text == "0 1 2 3 4 "
    other = await api.http.post(path, json={**body, "message": "other"}, headers=mine)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    rows = (await api.http.get(f"/api/chat/sessions/{id}", headers=mine)).json()["messages"]
    assert [row["role"] for row in rows] == ["user", "assistant"]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "caf\xe9"])
async def test_an_invalid_idempotency_key_is_refused(api: RunningApi, key: str) -> None:
    id = await api.new_session()
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    answer = await api.http.post(f"/api/chat/sessions/{id}/stream", json={"message": "x"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"message": ""}, "empty_message"),
        ({"message": " \n\t\u3000"}, "empty_message"),
        ({"message": "x" * 64_001}, "message_too_long"),
        ({"message": "x", "surprise": 1}, "unknown_field"),
        ({"message": "x", "context": {"title": "y"}}, "unknown_field"),
        ({"message": 1}, "validation_error"),
        ({"message": "x", "on_busy": "later"}, "validation_error"),
        ({"message": "x", "message_id": ""}, "validation_error"),
        ({"message": "x", "message_id": "n\u00f6"}, "validation_error"),
        ({"message": "x", "is_user_message": "no"}, "validation_error"),
        ({}, "validation_error"),
        (["x"], "validation_error"),
        ("x", "validation_error"),
        (None, "validation_error"),
    ],
)
async def test_an_invalid_message_is_refused(api: RunningApi, body: object, code: str) -> None:
    id = await api.new_session()
    answer = await api.http.post(f"/api/chat/sessions/{id}/stream", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_a_message_of_exactly_the_limit_is_taken(api: RunningApi) -> None:
    id = await api.new_session()
    await api.say(id, "/stream 1 0 " + "x" * (64_000 - 12))


async def test_a_note_of_a_service_needs_a_key(api: RunningApi) -> None:
    from tests.integration.running_api import OLD_SERVICE_KEY, SERVICE_KEY

    id = await api.new_session()
    path, body = f"/api/chat/sessions/{id}/stream", {"message": "a note", "is_user_message": False}
    for headers in (
        [],
        [("x-api-key", "wrong")],
        [("x-api-key", "")],
        [("x-api-key", "k" * 60_000)],
        [(b"x-api-key", "ключ".encode())],
        [("x-api-key", SERVICE_KEY), ("x-api-key", SERVICE_KEY)],
    ):
        answer = await api.http.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), headers
    for key in (SERVICE_KEY, OLD_SERVICE_KEY):
        answer, client = await api.read("POST", path, json=body, headers={"x-api-key": key})
        assert (answer.status_code, client.done) == (200, True)
    rows = (await api.http.get(f"/api/chat/sessions/{id}")).json()["messages"]
    assert {row["role"] for row in rows} == {"assistant"}


async def test_missing_tasks_and_tasks_of_others_are_the_same_404(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    client = await api.say(id, "hello", mine)
    task_id = client.chunks[0]["messageId"].removeprefix("msg_")
    for named, headers in ((task_id, api.as_user()), (new_task_id(), mine), ("nonsense", mine), ("%00", mine)):
        for method, path in (("GET", ""), ("GET", "/stream"), ("POST", "/cancel"), ("HEAD", "/stream")):
            answer = await api.http.request(method, f"/api/chat/tasks/{named}{path}", headers=headers)
            assert answer.status_code == 404
            if method != "HEAD":
                assert answer.json()["code"] == "task_not_found"


async def test_head_answers_with_headers_and_opens_nothing(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    client = await api.say(id, "hello", mine)
    task_id = client.chunks[0]["messageId"].removeprefix("msg_")
    there = await api.http.head(f"/api/chat/tasks/{task_id}/stream", headers=mine)
    assert (there.status_code, there.headers["x-resumable-stream-id"], there.content) == (200, task_id, b"")
    assert (await api.http.head(f"/api/chat/sessions/{id}/stream", headers=mine)).status_code == 204
    assert (await api.http.head(f"/api/chat/{id}/stream", headers=mine)).status_code == 204
    assert len(api.app.open_streams) == 0


async def test_a_caller_at_the_limit_of_streams_gets_no_more_until_one_is_closed(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    post = asyncio.create_task(
        api.read("POST", f"/api/chat/sessions/{id}/stream", json={"message": "/stream 100000 20"}, headers=mine)
    )
    active = await api.active_stream(id, mine)
    path = f"/api/chat/tasks/{active['task_id']}/stream"
    readers = [asyncio.create_task(api.read("GET", path, headers=mine)) for _ in range(7)]
    await api.reading(8)
    ninth = await api.http.get("/api/chat/events", headers=mine)
    assert (ninth.status_code, ninth.json()["code"]) == (429, "too_many_streams")
    assert ninth.json()["detail"] == "8 streams are open, which is the limit; close one first."
    assert int(ninth.headers["retry-after"]) > 0
    posted = await api.http.post(f"/api/chat/sessions/{id}/stream", json={"message": "x"}, headers=mine)
    assert (posted.status_code, posted.json()["code"]) == (429, "too_many_streams")
    assert (await api.session(id, mine))["queued"] == []  # refused means: not accepted
    readers[0].cancel()
    await asyncio.gather(readers[0], return_exceptions=True)
    await api.reading(7)
    readers[0] = asyncio.create_task(api.read("GET", path, headers=mine))
    await api.http.post(f"/api/chat/tasks/{active['task_id']}/cancel", headers=mine)
    for client in [post, *readers]:
        assert (await client)[1].done
    await api.reading(0)


async def test_a_newer_stream_takes_the_place_of_the_oldest_of_its_task(api: RunningApi) -> None:
    """Behind a proxy that tells late that a client left, every reload of a silent answer would hold a place."""
    mine = api.as_user()
    id = await api.new_session(mine)
    path = f"/api/chat/sessions/{id}/stream"
    async with AsyncExitStack() as left:
        post = await left.enter_async_context(
            api.http.stream("POST", path, json={"message": "/stream 2 60000"}, headers=mine)
        )
        task = f"/api/chat/tasks/{post.headers['x-resumable-stream-id']}"
        for _ in range(20):
            again = await left.enter_async_context(api.http.stream("GET", f"{task}/stream", headers=mine))
            assert again.status_code == 200
        async with asyncio.timeout(LIMIT):
            with pytest.raises(httpx.RemoteProtocolError):  # cut, not ended
                await post.aread()
        async with asyncio.timeout(LIMIT):
            while len(api.app.open_streams) > 8:
                await asyncio.sleep(0.02)
        feed = await api.http.get("/api/chat/events", headers=mine)
        assert (feed.status_code, feed.json()["code"]) == (429, "too_many_streams")
        await api.http.post(f"{task}/cancel", headers=mine)


async def test_too_many_pages_do_not_cut_each_other_without_end(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    statuses = []
    async with AsyncExitStack() as left:
        post = api.http.stream(
            "POST", f"/api/chat/sessions/{id}/stream", json={"message": "/stream 2 60000"}, headers=mine
        )
        task = f"/api/chat/tasks/{(await left.enter_async_context(post)).headers['x-resumable-stream-id']}"
        for _ in range(50):
            again = await left.enter_async_context(api.http.stream("GET", f"{task}/stream", headers=mine))
            statuses.append(again.status_code)
        await api.http.post(f"{task}/cancel", headers=mine)
    assert statuses == [200] * 39 + [429] * 11  # 7 free places, then four for each place


async def test_a_client_that_goes_at_the_first_byte_loses_nothing(api: RunningApi) -> None:
    mine = api.as_user()
    id = await api.new_session(mine)
    async with api.http.stream(
        "POST", f"/api/chat/sessions/{id}/stream", json={"message": "/stream 5"}, headers=mine
    ) as answer:
        task_id = answer.headers["x-resumable-stream-id"]
    _, client = await api.read("GET", f"/api/chat/tasks/{task_id}/stream", headers=mine)
    assert client.text == "0 1 2 3 4 "
