"""A stop that overtakes the message it is meant for: whichever the server reads first, the stop wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from backend.api import stopping
from backend.api.timeouts import Timeouts
from backend.chat.store import tasks
from backend.ids import SessionId
from tests.integration.running_api import LIMIT, RunningApi, new_id, running_api
from tests.integration.test_api_chat import chat, user_message
from tests.servers.redis import RedisNode
from tests.speed import limit

LONG = "/stream 100000 20"
GRACE = limit(stopping.GRACE_S) * 4


@pytest.fixture(autouse=True)
def _wait_as_long_as_this_machine_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "GRACE_S", GRACE)
    monkeypatch.setattr(stopping, "JUST_ENDED_S", limit(30))


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    timeouts = Timeouts(answer_timeout=limit(30))  # longer than GRACE
    async with running_api(postgres_dsn, redis_dsn, timeouts=timeouts) as resources:
        yield resources


def body_of(session: str, route: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    if route == "chat":
        return "/api/chat", {"id": session, "messages": [user_message("m1", LONG)]}
    return f"/api/chat/sessions/{session}/stream", {"message": LONG, "message_id": "m1", **fields}


async def stop(api: RunningApi, session: str, mine: dict[str, str], **params: str) -> dict[str, Any]:
    answer = await api.http.post(f"/api/chat/sessions/{session}/cancel", params=params, headers=mine)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def status_of(reading: asyncio.Task[Any]) -> str:
    answer, client = await reading
    assert answer.status_code == 200, answer.text
    assert client.done
    assert client.text == ""
    status: str = client.chunks[-1]["messageMetadata"]["status"]
    return status


@pytest.mark.parametrize("route", ["chat", "stream"])
async def test_a_stop_that_names_its_message_waits_for_it(api: RunningApi, route: str) -> None:
    """The body of the message is still being uploaded when the stop comes, or its connection has not been read."""
    mine = api.as_user()
    session = new_id() if route == "chat" else await api.new_session(mine)
    stopped = await stop(api, session, mine, message_id="m1")
    assert stopped == {"cancelled": True, "reason": "message_not_received"}
    path, body = body_of(session, route)
    reading = asyncio.create_task(api.read("POST", path, json=body, headers=mine))
    assert await status_of(reading) == "cancelled"
    assert "active_stream" not in await api.session(session, mine)
    other = await chat(api, session, user_message("m2", "/stream 2"), headers=mine)
    assert other.text == "0 1 "


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
@pytest.mark.parametrize("route", ["chat", "stream"])
async def test_a_stop_waits_for_a_message_that_is_being_uploaded(api: RunningApi, route: str, named: bool) -> None:
    mine = api.as_user()
    session = new_id() if route == "chat" else await api.new_session(mine)
    path, body = body_of(session, route)
    rest = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        whole = httpx.Request("POST", "http://x", json=body).content
        yield whole[:10]
        await rest.wait()
        yield whole[10:]

    headers = {**mine, "content-type": "application/json"}
    reading = asyncio.create_task(api.read("POST", path, content=slowly(), headers=headers))
    async with asyncio.timeout(LIMIT):
        while not len(api.app.arrivals):
            await asyncio.sleep(0.02)
    stopping_it = asyncio.create_task(stop(api, session, mine, **({"message_id": "m1"} if named else {})))
    for _ in range(10):
        await api.http.get("/health/live")
    assert not stopping_it.done()
    rest.set()
    assert (await stopping_it)["cancelled"] is True
    assert await status_of_any(reading) == "cancelled"


async def test_a_stop_without_a_name_waits_a_moment_for_its_message(api: RunningApi) -> None:
    mine = api.as_user()
    for _ in range(5):
        session = await api.new_session(mine)
        path, body = body_of(session, "stream")
        stopped = asyncio.create_task(stop(api, session, mine))
        reading = asyncio.create_task(api.read("POST", path, json=body, headers=mine))
        assert (await stopped)["cancelled"] is True
        assert await status_of_any(reading) == "cancelled"


async def status_of_any(reading: asyncio.Task[Any]) -> str:
    """It may have begun to speak before it was stopped."""
    _, client = await reading
    status: str = client.chunks[-1]["messageMetadata"]["status"]
    return status


async def test_a_stop_that_came_too_late_stops_nothing_else(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    await api.say(session, "/stream 1", mine, message_id="m1")
    for named in ({}, {"message_id": "m1"}):
        assert await stop(api, session, mine, **named) == {"cancelled": False, "reason": "no_active_task"}
        client = await api.say(session, "/stream 2", mine)
        assert client.text == "0 1 "


async def test_a_stop_by_name_takes_a_waiting_message_and_leaves_the_running_one(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    path, body = body_of(session, "stream")
    running = asyncio.create_task(api.read("POST", path, json=body, headers=mine))
    await api.active_stream(session, mine)
    waiting = asyncio.create_task(
        api.read("POST", path, json={"message": "/stream 2", "message_id": "m2"}, headers=mine)
    )
    async with asyncio.timeout(LIMIT):
        while not (await api.session(session, mine))["queued"]:
            await asyncio.sleep(0.02)
    assert (await stop(api, session, mine, message_id="m2"))["cancelled"] is True
    assert await status_of(waiting) == "cancelled"
    assert (await api.session(session, mine))["chat_status"] == "running"
    assert (await stop(api, session, mine, message_id="m1"))["cancelled"] is True
    assert await status_of_any(running) == "cancelled"


ANOTHER = "/stream 100000 21"
REQUESTS: dict[str, dict[str, Any]] = {
    "message": {"messages": [user_message("m1", LONG)]},
    "regeneration": {"messages": [user_message("m1", LONG)], "trigger": "regenerate-message"},
    "edit": {"messages": [user_message("m1", ANOTHER)], "messageId": "m1"},
}
BY = ["question", "answer", "old answer", "task"]


@pytest.mark.parametrize("waits", [False, True], ids=["runs", "waits"])
@pytest.mark.parametrize(
    ("what", "by"), [(what, by) for what in REQUESTS for by in BY if (what, by) != ("message", "old answer")]
)
async def test_every_kind_of_turn_is_stopped_by_every_id(api: RunningApi, what: str, by: str, *, waits: bool) -> None:
    """The ids are those that a page has: of its message, of the answer, of an earlier answer to the same message."""
    mine, session, old = api.as_user(), new_id(), ""
    if what != "message":
        reading, old = await begin(api, mine, session, **REQUESTS["message"])
        await stop(api, session, mine)
        await status_of_any(reading)
    if waits:
        running, _ = await begin(api, mine, session, messages=[user_message("m0", LONG)])
    reading, task = await begin(api, mine, session, **REQUESTS[what])
    if by == "task":
        answer = (await api.http.post(f"/api/chat/tasks/{task}/cancel", headers=mine)).json()
    else:
        named = {"question": "m1", "answer": f"msg_{task}", "old answer": f"msg_{old}"}[by]
        answer = await stop(api, session, mine, message_id=named)
    assert answer == {"cancelled": True, "task_id": task}
    assert await status_of_any(reading) == "cancelled"
    if waits:
        assert not running.done()
        await stop(api, session, mine)
        await status_of_any(running)


async def begin(api: RunningApi, mine: dict[str, str], session: str, **body: Any) -> tuple[asyncio.Task[Any], str]:
    """Sends a request and returns what reads its answer, and its task, which runs or waits by then."""
    before = await unended(api, session)
    reading = asyncio.create_task(api.read("POST", "/api/chat", json={"id": session, **body}, headers=mine))
    async with asyncio.timeout(LIMIT):
        while not (made := await unended(api, session) - before):
            assert not reading.done(), reading.result()
            await asyncio.sleep(0.02)
    return reading, made.pop()


async def unended(api: RunningApi, session: str) -> set[str]:
    async with api.resources.database.connection() as c:
        return {task.id for task in await tasks.unended_tasks(c, SessionId(session))}


@pytest.mark.parametrize("what", ["regeneration", "edit"])
async def test_a_stop_waits_a_moment_for_a_revision(
    api: RunningApi, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "JUST_ENDED_S", 0.0)
    mine, session = api.as_user(), new_id()
    reading, _ = await begin(api, mine, session, **REQUESTS["message"])
    await stop(api, session, mine)
    await status_of_any(reading)
    stopped = asyncio.create_task(stop(api, session, mine, message_id="m1"))
    body = {"id": session, **REQUESTS[what]}  # without begin(): the turn may have ended before its first look
    reading = asyncio.create_task(api.read("POST", "/api/chat", json=body, headers=mine))
    assert (await stopped)["cancelled"] is True
    assert await status_of_any(reading) == "cancelled"


async def test_a_stop_waits_for_a_message_that_autogpts_page_queues(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    running, _ = await begin(api, mine, session, messages=[user_message("m0", LONG)])
    rest = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"message": '
        await rest.wait()
        yield b'"' + LONG.encode() + b'"}'

    path, headers = f"/api/chat/sessions/{session}/messages/pending", {**mine, "content-type": "application/json"}
    queueing = asyncio.create_task(api.http.post(path, content=slowly(), headers=headers))
    async with asyncio.timeout(LIMIT):
        while not len(api.app.arrivals):
            await asyncio.sleep(0.02)
    rest.set()
    assert (await queueing).json()["turn_in_flight"] is True
    for _ in range(2):
        assert (await stop(api, session, mine))["cancelled"] is True
    assert await status_of_any(running) == "cancelled"
    assert await unended(api, session) == set()


async def test_a_message_may_have_an_id_like_that_of_an_answer(api: RunningApi) -> None:
    mine, session = api.as_user(), new_id()
    reading, task = await begin(api, mine, session, messages=[user_message("msg_1", LONG)])
    assert await stop(api, session, mine, message_id="msg_1") == {"cancelled": True, "task_id": task}
    assert await status_of_any(reading) == "cancelled"


async def test_nobody_stops_an_answer_of_another_session(api: RunningApi) -> None:
    mine, session, other = api.as_user(), new_id(), new_id()
    reading, task = await begin(api, mine, session, messages=[user_message("m1", LONG)])
    for caller in (mine, api.as_user()):
        await stop(api, other, caller, message_id=f"msg_{task}")
    assert await unended(api, session) == {task}
    await stop(api, session, mine)
    await status_of_any(reading)


async def test_nobody_stops_a_message_of_another(api: RunningApi) -> None:
    mine = api.as_user()
    session = new_id()
    for _ in range(2):
        await stop(api, session, api.as_user(), message_id="m1")
        client = await chat(api, session, user_message("m1", "/stream 2"), headers=mine)
        assert client.text == "0 1 "
        session = new_id()
    await api.http.post("/api/chat/sessions", json={"id": session}, headers=mine)
    for params, status in (({}, 404), ({"message_id": "m1"}, 200)):
        answers = [
            await api.http.post(f"/api/chat/sessions/{id}/cancel", params=params, headers=api.as_user())
            for id in (session, new_id())  # a foreign session looks like one that is not there
        ]
        assert [answer.status_code for answer in answers] == [status, status]
        assert {answer.json().get("reason", answer.json().get("code")) for answer in answers} in (
            {"session_not_found"}, {"message_not_received"},
        )  # fmt: skip


async def test_a_stop_that_cannot_be_kept_is_refused(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with running_api(postgres_dsn, private_redis.dsn, executor=False) as api:
        session = await api.new_session()
        await private_redis.kill()
        refused = await api.http.post(f"/api/chat/sessions/{session}/cancel", params={"message_id": "m1"})
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        await private_redis.start()
