"""Tests of the executors' heartbeats, the lock of the sweeper, and the facts about users."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backend.chat.store import executors, sessions, tasks
from backend.chat.store.business_profile import MAX_LIST, merge_understanding
from backend.errors import SessionNotFound
from backend.ids import new_executor_id, new_session_id
from backend.postgres import Connection, Database
from tests.integration.rows import a_claimed_task, a_session, new_user
from tests.speed import limit


async def test_a_heartbeat_updates_when_an_executor_was_seen(c: Connection) -> None:
    executor_id = new_executor_id()
    assert await executors.last_seen(c, executor_id) is None
    await executors.beat(c, executor_id)
    await c.execute("UPDATE executors SET seen_at = seen_at - interval '1 hour' WHERE id = $1", executor_id)
    assert 3600 <= (await executors.last_seen(c, executor_id) or 0) < 3660
    await executors.beat(c, executor_id)
    assert 0 <= (await executors.last_seen(c, executor_id) or 0) < 60
    await executors.forget(c, executor_id)
    assert await executors.last_seen(c, executor_id) is None


async def test_a_heartbeat_tells_whether_the_executor_has_claims(c: Connection) -> None:
    mine, other = new_executor_id(), new_executor_id()
    assert not (await executors.beat(c, mine)).has_claims
    task = await a_claimed_task(c, mine)
    assert (await executors.beat(c, mine)).has_claims
    assert not (await executors.beat(c, other)).has_claims
    await tasks.release_claim(c, task.id, mine)
    assert not (await executors.beat(c, mine)).has_claims


async def test_executors_without_recent_heartbeats_are_pruned(c: Connection) -> None:
    old, young = new_executor_id(), new_executor_id()
    for executor_id in (old, young):
        await executors.beat(c, executor_id)
    await c.execute("UPDATE executors SET seen_at = seen_at - interval '1 day' WHERE id = $1", old)
    await executors.prune(c, older_than=3600)
    assert await executors.last_seen(c, old) is None
    assert await executors.last_seen(c, young) is not None


async def test_only_one_executor_sweeps_at_a_time(database: Database, c: Connection) -> None:
    async with database.connection() as other:
        async with executors.sweeping(c) as mine:
            async with executors.sweeping(other) as theirs:
                assert (mine, theirs) == (True, False)
            async with executors.sweeping(other) as theirs:
                assert not theirs, "an executor that did not get the lock does not release it"
        async with executors.sweeping(other) as theirs:
            assert theirs


async def facts_of(c: Connection, owner: str) -> dict[str, Any]:
    return await c.fetchval("SELECT facts FROM understanding WHERE owner = $1", owner) or {}


async def test_facts_are_merged(c: Connection) -> None:
    owner = f"user:{new_user().user_id}"
    assert await facts_of(c, owner) == {}
    await merge_understanding(c, owner, {"name": "Ann", "tools": ["excel"], "shop": {"city": "Oslo", "size": 2}})
    update = {"name": "Anna", "tools": ["sap", "excel"], "shop": {"size": 3}, "industry": None, "goal": "less typing"}
    merged = await merge_understanding(c, owner, update)
    assert merged == await facts_of(c, owner)
    assert merged == {
        "name": "Anna",
        "tools": ["excel", "sap"],
        "shop": {"city": "Oslo", "size": 3},
        "industry": None,
        "goal": "less typing",
    }
    await merge_understanding(c, owner, {"tools": list(range(MAX_LIST)), "name": None})
    kept = await facts_of(c, owner)
    assert kept["tools"] == list(range(MAX_LIST))
    assert kept["name"] == "Anna"


async def test_concurrently_merged_facts_are_all_kept(database: Database, c: Connection) -> None:
    owner = f"user:{new_user().user_id}"

    async def merge(n: int) -> None:
        async with database.connection() as mine:
            await merge_understanding(mine, owner, {f"fact{n}": n, "all": [n]})

    async with asyncio.timeout(limit(30)):
        await asyncio.gather(*(merge(n) for n in range(8)))
    known = await facts_of(c, owner)
    assert sorted(known["all"]) == list(range(8))
    assert len(known) == 9


async def test_the_facts_of_an_anonymous_session_are_deleted_with_it(c: Connection) -> None:
    session_id = await a_session(c)
    owner = f"session:{session_id}"
    await merge_understanding(c, owner, {"name": "Ann"})
    await sessions.delete_session(c, session_id)
    assert await facts_of(c, owner) == {}
    with pytest.raises(SessionNotFound):
        await merge_understanding(c, f"session:{new_session_id()}", {"name": "Ann"})
