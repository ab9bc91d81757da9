"""Rows of summaries: claimed by one attempt at a time, made once, and gone with their session."""

from __future__ import annotations

import asyncio

from backend.chat.models import Usage
from backend.chat.store import sessions, tasks
from backend.chat.store.derived import summaries
from backend.chat.store.derived.summaries import MAX_ATTEMPTS, SummaryClaim
from backend.ids import SessionId, new_session_id
from backend.postgres import Connection, Database
from tests.integration.rows import a_claimed_task, a_session
from tests.speed import limit

MINUTE = 60.0


async def claim(
    database: Database, session: SessionId, through: int = 4, *calls: str, seconds: float = MINUTE
) -> SummaryClaim | None:
    async with database.transaction() as c:
        return await summaries.claim_summary(c, session, through, calls=calls, messages=through, seconds=seconds)


async def taken(database: Database, session: SessionId, through: int = 4, seconds: float = MINUTE) -> SummaryClaim:
    found = await claim(database, session, through, seconds=seconds)
    assert found is not None
    return found


async def test_one_of_many_executors_makes_a_summary_and_the_others_make_no_other(
    database: Database, c: Connection
) -> None:
    session = await a_session(c)
    claims = await asyncio.gather(*(claim(database, session, place) for place in (4, 4, 4, 6, 8)))
    (won,) = [one for one in claims if one is not None]
    assert await summaries.end_attempt(c, won, "In short.")
    assert not await summaries.end_attempt(c, won, "Otherwise.")
    assert await claim(database, session, won.through) is None, "it is made"
    found = await summaries.newest_summary(c, session, [4, 6, 8])
    assert found is not None
    assert (found.through, found.text, found.attempts) == (won.through, "In short.", 1)


async def test_an_attempt_whose_executor_died_is_repeated_and_its_late_end_counts_for_nothing(
    database: Database, c: Connection
) -> None:
    session = await a_session(c)
    dead = await taken(database, session, seconds=0)
    assert await summaries.newest_summary(c, session, [4]) is None, "there is no half summary"
    again = await taken(database, session)
    assert again.attempt == 2
    assert not await summaries.end_attempt(c, dead, "late")
    assert await summaries.end_attempt(c, again, "In short.")


async def test_a_cancelled_attempt_can_be_made_again_at_once_and_does_not_count(
    database: Database, c: Connection
) -> None:
    session = await a_session(c)
    for _ in range(MAX_ATTEMPTS + 1):
        cancelled = await taken(database, session)
        assert cancelled.attempt == 1
        await summaries.release_claim(c, cancelled)
    other = await taken(database, session, through=6)
    assert await summaries.end_attempt(c, other, "In short.")
    await summaries.release_claim(c, other)
    found = await summaries.newest_summary(c, session, [6])
    assert found is not None
    assert found.text == "In short."


async def test_a_summary_that_fails_again_and_again_is_given_up(database: Database, c: Connection) -> None:
    session = await a_session(c)
    for _ in range(MAX_ATTEMPTS):
        assert await summaries.end_attempt(c, await taken(database, session), None)
    assert await claim(database, session) is None
    begun = await summaries.newest_attempt(c, session, [2, 4])
    assert begun is not None
    assert begun.given_up
    assert await claim(database, session, 6) is not None, "a later place is another summary"


async def test_a_summary_belongs_to_the_branches_with_its_message(database: Database, c: Connection) -> None:
    session = await a_session(c)
    for place in (4, 10):
        await summaries.end_attempt(c, await taken(database, session, place), f"up to {place}")
    for places, text in (([2, 4, 6, 8], "up to 4"), ([2, 4, 10, 12], "up to 10"), ([2, 20], None)):
        found = await summaries.newest_summary(c, session, places)
        assert (None if found is None else found.text) == text
    assert await summaries.newest_summary(c, await a_session(c), [4]) is None


async def test_a_deleted_session_takes_its_summaries_with_it(database: Database, c: Connection) -> None:
    session = await a_session(c)
    claimed = await taken(database, session)
    await sessions.delete_session(c, session)
    assert await c.fetchval("SELECT count(*) FROM summaries WHERE session_id = $1", session) == 0
    assert not await summaries.end_attempt(c, claimed, "late")
    assert await claim(database, new_session_id()) is None


async def test_the_end_of_an_attempt_and_the_deletion_of_its_session_do_not_meet_halfway(
    database: Database, c: Connection
) -> None:
    task = await a_claimed_task(c)
    claimed = await taken(database, task.session_id)

    async def delete() -> None:
        async with database.transaction() as other:
            pid.set_result(await other.fetchval("SELECT pg_backend_pid()"))
            assert await sessions.lock_session(other, task.session_id)
            await sessions.delete_session(other, task.session_id)

    pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with database.transaction() as ending:
        assert await summaries.end_attempt(ending, claimed, "In short.")
        deleting = asyncio.create_task(delete())
        waits = "SELECT 1 FROM pg_locks WHERE pid = $1 AND NOT granted"
        async with asyncio.timeout(limit(10)):
            while await c.fetchval(waits, await pid) is None:
                await asyncio.sleep(0.02)  # between two looks of a bounded wait
        await tasks.add_later_usage(ending, task.id, Usage(1))
    await deleting
    assert not await summaries.end_attempt(c, claimed, "late")


async def test_what_a_summary_costs_counts_for_the_session_and_not_for_the_task(c: Connection) -> None:
    task = await a_claimed_task(c)
    for cost in ({"USD": 0.5}, {"EUR": 2.0}):
        await tasks.add_later_usage(c, task.id, Usage(100, 10, 0, 90, "m", cost))
    assert (await tasks.get_task(c, task.id)).usage == Usage()
    used = await tasks.session_usage(c, task.session_id)
    assert used == Usage(200, 20, 0, 180, None, {"USD": 0.5, "EUR": 2.0})
    await sessions.delete_session(c, task.session_id)
    await tasks.add_later_usage(c, task.id, Usage(1))
