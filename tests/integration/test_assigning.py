"""Tests of giving an anonymous session to a user: the facts move with it, and the streams of others end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from backend.chat.store.business_profile import merge_understanding
from tests.e2e.sse import words_for
from tests.integration.running_api import LIMIT, RunningApi, new_user, running_api
from tests.integration.test_api_events import listening


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as running:
        yield running


async def assign(api: RunningApi, session: str, mine: dict[str, str]) -> None:
    answer = await api.http.patch(f"/api/chat/sessions/{session}/assign-user", headers=mine)
    assert answer.status_code == 200, answer.text


async def tell(api: RunningApi, session: str, facts: str, mine: dict[str, str] | None = None) -> dict[str, Any]:
    """Lets the model remember facts, and returns all that are known."""
    client = await api.say(session, f"/tool add_understanding {facts}", mine)
    (output,) = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
    known: dict[str, Any] = output["current_understanding"]
    return known


async def owners_of_facts(api: RunningApi, *owners: str) -> list[str]:
    async with api.resources.database.connection() as c:
        rows = await c.fetch("SELECT owner FROM understanding WHERE owner = ANY($1::text[])", list(owners))
    return [row["owner"] for row in rows]


async def test_what_was_told_before_signing_in_becomes_the_users(api: RunningApi) -> None:
    user = new_user()
    mine = api.as_user(user)
    await tell(
        api, await api.new_session(mine), '{"business_name": "Old", "industry": "bikes", "pain_points": ["a"]}', mine
    )
    session = await api.new_session()
    await tell(api, session, '{"business_name": "New", "pain_points": ["b"]}')
    await assign(api, session, mine)
    assert await owners_of_facts(api, f"user:{user}", f"session:{session}") == [f"user:{user}"]
    assert await tell(api, session, '{"user_name": "Ann"}', mine) == {
        "business_name": "New", "industry": "bikes", "pain_points": ["a", "b"], "user_name": "Ann",
    }  # fmt: skip


async def test_newer_facts_of_the_user_count_more_than_those_of_the_session(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session()
    await tell(api, session, '{"business_name": "Old", "industry": "bikes"}')
    await tell(api, await api.new_session(mine), '{"business_name": "New"}', mine)
    await assign(api, session, mine)
    known = await tell(api, session, '{"user_name": "Ann"}', mine)
    assert known == {"business_name": "New", "industry": "bikes", "user_name": "Ann"}


async def test_facts_of_a_turn_that_began_before_the_assignment_become_the_users(api: RunningApi) -> None:
    user = new_user()
    session = await api.new_session()
    await assign(api, session, api.as_user(user))
    async with api.resources.database.connection() as c:
        await merge_understanding(c, f"session:{session}", {"industry": "bikes"})
    assert await owners_of_facts(api, f"user:{user}", f"session:{session}") == [f"user:{user}"]


async def test_streams_and_feeds_of_others_end_when_a_session_is_assigned(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session()
    path = f"/api/chat/sessions/{session}/stream"
    cut = [asyncio.create_task(api.read("POST", path, json={"message": f"/stream {words_for(20)} 100"}))]
    await api.active_stream(session)
    cut += [asyncio.create_task(api.read("GET", path, headers=headers)) for headers in (None, api.as_user())]
    await api.reading(3)
    async with listening(api, session_id=session) as foreign, listening(api, mine, session_id=session) as own:
        await assign(api, session, mine)
        ends = await asyncio.wait_for(asyncio.gather(*cut, return_exceptions=True), LIMIT)
        assert all(isinstance(end, httpx.RemoteProtocolError | httpx.ReadError) for end in ends), ends
        title = await api.http.patch(f"/api/chat/sessions/{session}", json={"title": "Private"}, headers=mine)
        assert title.status_code == 200
        await own.until("title-changed", title="Private")
        await asyncio.wait_for(foreign.ended.wait(), LIMIT)
        assert {hint["type"] for hint in foreign.seen} == {"snapshot"}
        assert (await api.http.get(path)).status_code == 204
        cancelled = await api.http.post(f"/api/chat/sessions/{session}/cancel", headers=mine)
        assert cancelled.json()["cancelled"]
        await own.until("turn-finished")
