"""Limits of what callers can store, deletion of expired sessions, and deletion of everything of a user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from backend.chat.flows.delete import delete_expired
from backend.chat.keys import stream_key
from backend.chat.models import Caller
from backend.chat.outcomes import ToolWork
from backend.chat.questions import Question, QuestionKind
from backend.chat.store import operations
from backend.chat.store.business_profile import merge_understanding
from backend.chat.store.library import save_agent
from backend.chat.store.sessions import expired_sessions
from backend.errors import TooManyAgents, TooManyOperations
from backend.ids import SessionId, TaskId, UserId
from tests.fakes.outside_work import OutsideToolbox
from tests.integration.agents import a_graph, agent_json, an_agent
from tests.integration.running_api import LIMIT, SERVICE_KEY, RunningApi, new_id, new_user, running_api
from tests.integration.test_operations import begin, complete, result_of

MOST = 3


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(
        postgres_dsn, redis_dsn, toolbox=OutsideToolbox, max_operations=MOST, share_links=True
    ) as running:
        yield running


@pytest.mark.parametrize(("size", "status"), [(16_300, 200), (16_400, 422)])
async def test_metadata_of_a_session_has_at_most_16_kilobytes(api: RunningApi, size: int, status: int) -> None:
    answer = await api.http.post("/api/chat/sessions", json={"metadata": {"a": "x" * size}})
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["code"] == "validation_error"
        assert "16384 bytes" in answer.json()["fields"][0]["message"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("local", "local", True),
    ],
)
def test_anonymous_callers_of_one_ipv6_network_share_their_limits(one: str, other: str, *, same: bool) -> None:
    assert (Caller(None, one).quota_key == Caller(None, other).quota_key) is same


async def test_a_user_has_a_limited_number_of_operations_however_many_calls_ask(api: RunningApi) -> None:
    mine = api.as_user(new_user())
    session = await api.new_session(mine)
    calls = "\n".join(f'/tool outside_work {{"label": "{n}"}}' for n in range(40))
    client = await api.say(session, calls, mine)
    outputs = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
    kinds = [output.get("error") or output["type"] for output in outputs]
    assert (kinds.count("operation_started"), kinds.count("too_many_operations")) == (MOST, 40 - MOST)
    elsewhere = await api.say(await api.new_session(mine), '/tool outside_work {"label": "b"}', mine)
    assert any(chunk.get("output", {}).get("error") == "too_many_operations" for chunk in elsewhere.chunks)
    other = api.as_user(new_user())
    free = await api.say(await api.new_session(other), '/tool outside_work {"label": "c"}', other)
    assert any(chunk.get("output", {}).get("type") == "operation_started" for chunk in free.chunks)


async def test_open_questions_have_a_limit_of_their_own(api: RunningApi) -> None:
    session = SessionId(await api.new_session(api.as_user(new_user())))
    question = Question(QuestionKind.QUESTION, "Which?")

    async def register(call: str, asks: Question | None) -> None:
        work = ToolWork(TaskId("none"), "a_tool", call, {}, asks=asks)
        async with api.resources.database.transaction() as c:
            await operations.check_room(c, session, work, MOST)
            await operations.register(c, session, work, limit=60)

    for n in range(MOST):
        await register(f"question-{n}", question)
    with pytest.raises(TooManyOperations, match="questions to this user are open"):
        await register("one more", question)
    for n in range(MOST):
        await register(f"operation-{n}", None)
    with pytest.raises(TooManyOperations, match="operations of this user have not ended"):
        await register("one more", None)


async def test_the_limit_of_operations_holds_for_registrations_at_the_same_moment(api: RunningApi) -> None:
    session = SessionId(await api.new_session(api.as_user(new_user())))

    async def register(call: str) -> bool:
        work = ToolWork(TaskId("none"), "a_tool", call, {})
        try:
            async with api.resources.database.transaction() as c:
                await operations.check_room(c, session, work, MOST)
                await operations.register(c, session, work, limit=60)
        except TooManyOperations:
            return False
        return True

    done = await asyncio.gather(*(register(f"call-{n}") for n in range(4 * MOST)))
    assert sum(done) == MOST
    first = f"call-{done.index(True)}"
    assert await register(first), "a repeated call finds its operation"


async def test_a_caller_creates_a_limited_number_of_sessions_a_minute(postgres_dsn: str, redis_dsn: str) -> None:
    async with running_api(postgres_dsn, redis_dsn, max_new_sessions=MOST) as api:
        for mine in (api.as_user(), {}):
            ids = [new_id() for _ in range(MOST)]
            for id in [*ids, ids[0]]:  # a known one is no new session
                made = await api.http.post("/api/chat/sessions", json={"id": id}, headers=mine)
                assert made.status_code in (200, 201)
            chat = {"id": new_id(), "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}
            for path, body in (
                ("/api/chat/sessions", {}),
                ("/api/chat/sessions", {"id": new_id()}),
                ("/api/chat", chat),
            ):
                refused = await api.http.post(path, json=body, headers=mine)
                assert (refused.status_code, refused.json()["code"]) == (429, "too_many_sessions")
                assert 1 <= int(refused.headers["retry-after"]) <= 60
            unmade = await api.http.get(f"/api/chat/sessions/{chat['id']}", headers=mine)
            assert unmade.status_code == 404
            assert (await api.say(ids[0], "/say hello", mine)).text == "hello"


async def test_a_library_has_a_limited_number_of_agents(postgres_dsn: str, redis_dsn: str) -> None:
    async with running_api(postgres_dsn, redis_dsn, toolbox=OutsideToolbox, max_agents=MOST) as api:
        user = new_user()
        mine = api.as_user(user)
        async with api.resources.database.connection() as c:
            for n in range(MOST):
                await an_agent(c, user, id=f"graph-{n}")
            await an_agent(c, user, id="graph-0", name="A new version")
        session, started = await begin(api, mine, '/tool outside_work {"use": "save_agent"}')
        made = {"agent_json": agent_json(id="one-more")}
        assert (await complete(api, started["operation_id"], result=made)).status_code == 200
        await api.ended(started["task_id"], mine)
        result = result_of(await api.session(session, mine))
        assert (result["type"], result["error"]) == ("error", "too_many_agents")
        assert result["details"]["agent_json"]["id"] == "one-more"
        assert (await api.http.get("/api/library/agents", headers=mine)).json()["total"] == MOST


async def test_new_agents_at_the_same_moment_pass_no_limit(api: RunningApi) -> None:
    user = UserId(new_user())

    async def save(n: int) -> bool:
        try:
            async with api.resources.database.transaction() as c:
                await save_agent(c, user, a_graph(id=f"graph-{n}"), task_id=None, most=MOST)
        except TooManyAgents:
            return False
        return True

    assert sum(await asyncio.gather(*map(save, range(4 * MOST)))) == MOST


async def test_the_progress_of_an_operation_does_not_grow_without_limit(api: RunningApi) -> None:
    mine = api.as_user(new_user())
    session, started = await begin(api, mine)
    key = stream_key(SessionId(session), TaskId(started["task_id"]))
    newest = (await api.resources.redis.xrevrange(key, count=1))[0][0].decode()
    fence, seq = map(int, newest.split("-"))
    pipeline = api.resources.redis.pipeline(transaction=False)
    for n in range(1, 5_000):
        pipeline.xadd(key, {"d": "{}"}, id=f"{fence}-{seq + n}")
    await pipeline.execute()
    before = await api.resources.redis.xlen(key)
    report = {"percent": 50, "message": "half"}
    answer = await api.http.post(
        f"/api/chat/operations/{started['operation_id']}/progress", json=report, headers={"x-api-key": SERVICE_KEY}
    )
    assert answer.status_code == 202
    assert await api.resources.redis.xlen(key) == before
    (operation,) = (await api.session(session, mine))["operations"]
    assert operation["progress"] == {"percent": 50.0, "message": "half"}


async def test_expired_sessions_are_deleted_in_small_steps(api: RunningApi) -> None:
    mine = api.as_user(new_user())
    old = [await api.new_session(mine) for _ in range(3)]
    fresh, busy = SessionId(await api.new_session(mine)), SessionId(await api.new_session(mine))
    await api.say(busy, '/tool outside_work {"label": "b"}', mine)  # its operation is pending
    async with api.resources.database.connection() as c:
        await c.execute("UPDATE sessions SET updated_at = now() - interval '8 days' WHERE id = ANY($1)", [*old, busy])
        found = await expired_sessions(c, 7, 10)
        assert await expired_sessions(c, 7, 2) == found[:2]
    assert sorted(found) == sorted(old)
    assert [await delete_expired(api.resources, 7, some) for some in (found[:2], found, [fresh, busy])] == [2, 1, 0]
    left = (await api.http.get("/api/chat/sessions", headers=mine)).json()["sessions"]
    assert {session["id"] for session in left} == {fresh, busy}


async def test_deletion_of_a_user_leaves_nothing_of_them(api: RunningApi, redis_dsn: str) -> None:
    user, other = new_user(), new_user()
    mine = api.as_user(user)
    sessions = [await api.new_session(mine) for _ in range(10)]
    await api.say(sessions[0], "/say a secret", mine)
    await api.say(sessions[1], '/tool outside_work {"label": "b"}', mine)
    anonymous = await api.new_session()
    await api.say(anonymous, "/say hello", mine)
    folder = (await api.http.post("/api/chat/folders", json={"name": f"of {user}"}, headers=mine)).json()["id"]
    place = {"folder_id": folder, "title": f"shared by {user}"}
    assert (await api.http.patch(f"/api/chat/sessions/{sessions[0]}", json=place, headers=mine)).status_code == 200
    assert (await api.http.put(f"/api/chat/sessions/{sessions[0]}/share", headers=mine)).status_code == 200
    answer = (await api.session(sessions[0], mine, format="ui"))["messages"][-1]["id"]
    path = f"/api/chat/sessions/{sessions[0]}/messages/{answer}/feedback"
    said = {"rating": "up", "comment": f"by {user}"}
    assert (await api.http.put(path, json=said, headers=mine)).status_code == 200
    assert {"folders", "shares", "feedback"} <= set(await places_with(api, user))
    kept = await api.new_session(api.as_user(other))
    async with api.resources.database.transaction() as c:
        await an_agent(c, user)
        await an_agent(c, other)
        await merge_understanding(c, f"user:{user}", {"user_name": "Ada"})
    answer = await api.http.delete("/api/chat/user", headers=mine)
    assert answer.status_code == 204
    found = await places_with(api, user)
    async with Redis.from_url(redis_dsn, decode_responses=True) as redis:
        found += [key async for key in redis.scan_iter("chat:*") if any(session in key for session in sessions)]
    assert found == []
    assert (await api.session(kept, api.as_user(other)))["id"] == kept
    assert "agents" in " ".join(await places_with(api, other))
    assert (await api.http.delete("/api/chat/user", headers=mine)).status_code == 204


async def test_an_anonymous_caller_is_no_user_to_delete(api: RunningApi) -> None:
    assert (await api.http.delete("/api/chat/user")).status_code == 401


async def places_with(api: RunningApi, text: str) -> list[str]:
    """Returns the tables that hold the text in any column of any row."""
    async with api.resources.database.connection() as c, asyncio.timeout(LIMIT):
        tables = await c.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        return [
            table
            for (table,) in tables
            if await c.fetchval(f"SELECT count(*) FROM \"{table}\" t WHERE t::text LIKE '%' || $1 || '%'", text)
        ]
