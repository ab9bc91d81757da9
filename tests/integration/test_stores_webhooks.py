"""Deliveries of webhooks in the store: when they are written, and who may send them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from backend.chat.models import Caller, Task, TaskStatus, Usage
from backend.chat.store import tasks
from backend.chat.store.webhooks import deliveries, endpoints
from backend.chat.store.webhooks.deliveries import Claimed, Event, Failure
from backend.chat.store.webhooks.endpoints import Endpoint
from backend.ids import new_executor_id
from backend.postgres import Connection, Database
from tests.integration.rows import NOBODY, a_session, a_task, new_user


async def an_endpoint(c: Connection, user: Caller, events: Sequence[Event] = tuple(Event)) -> Endpoint:
    assert user.user_id is not None
    async with c.transaction():
        return await endpoints.add_endpoint(
            c, user.user_id, "https://example.com/", events, with_text=False, secret="whsec_c2VjcmV0", most=9
        )


async def ended_turn(c: Connection, user: Caller) -> Task:
    task = await a_task(c, await a_session(c, user), user)
    claimed = await tasks.claim_new_task(c, task.id, new_executor_id())
    assert claimed is not None
    await tasks.finish_task(c, claimed, status=TaskStatus.COMPLETED, error=None, usage=Usage())
    return claimed


async def claim(c: Connection, limit: int = 100, per_endpoint: int = 100, besides: Sequence[str] = ()) -> list[Claimed]:
    return await deliveries.claim_due(c, limit=limit, per_endpoint=per_endpoint, besides=besides)


async def row_of(c: Connection, delivery: Claimed) -> dict[str, Any]:
    row = await c.fetchrow("SELECT * FROM webhook_deliveries WHERE id = $1", delivery.id)
    assert row is not None
    return dict(row)


@pytest.fixture(autouse=True)
async def nothing_due(c: Connection) -> None:
    await c.execute("DELETE FROM webhook_endpoints")


@pytest.mark.parametrize("endpoints", [0, 2])
async def test_the_end_of_a_turn_is_one_statement_with_and_without_endpoints(c: Connection, endpoints: int) -> None:
    user = new_user()
    for _ in range(endpoints):
        await an_endpoint(c, user)
    task = await a_task(c, await a_session(c, user), user)
    claimed = await tasks.claim_new_task(c, task.id, new_executor_id())
    assert claimed is not None
    asked: list[object] = []
    with c.query_logger(asked.append):
        await tasks.finish_task(c, claimed, status=TaskStatus.COMPLETED, error=None, usage=Usage())
    await asyncio.sleep(0)  # asyncpg calls loggers in the next round of the loop
    assert len(asked) == 1
    assert len(await claim(c)) == endpoints


async def test_an_end_that_is_rolled_back_leaves_no_event(database: Database, c: Connection) -> None:
    user = new_user()
    await an_endpoint(c, user)

    async def end_and_fail() -> None:
        async with database.transaction() as other:
            await ended_turn(other, user)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await end_and_fail()
    assert await claim(c) == []


async def test_events_go_to_the_sessions_user_alone(c: Connection) -> None:
    user, other = new_user(), new_user()
    endpoint = await an_endpoint(c, user)
    await an_endpoint(c, user, [Event.OPERATION_FINISHED])
    for caller in (other, NOBODY):
        await ended_turn(c, caller)
    assert await claim(c) == []
    task = await ended_turn(c, user)
    (delivery,) = await claim(c)
    assert (delivery.endpoint_id, delivery.task_id, delivery.session_id) == (endpoint.id, task.id, task.session_id)
    assert (delivery.event, delivery.status) == (Event.TURN_FINISHED, TaskStatus.COMPLETED)


async def test_two_senders_never_claim_the_same_attempt(database: Database, c: Connection) -> None:
    user = new_user()
    await an_endpoint(c, user)
    for _ in range(40):
        await ended_turn(c, user)

    async def sender() -> list[str]:
        mine: list[str] = []
        async with database.connection() as own:
            while claimed := await claim(own, per_endpoint=3):
                mine += [one.id for one in claimed]
        return mine

    everyones = [id for mine in await asyncio.gather(*(sender() for _ in range(4))) for id in mine]
    assert len(everyones) == len(set(everyones)) == 40


async def test_a_claim_that_lapsed_is_claimed_again_and_the_late_sender_changes_nothing(c: Connection) -> None:
    user = new_user()
    await an_endpoint(c, user)
    await ended_turn(c, user)
    (first,) = await claim(c)
    assert await claim(c) == []
    await c.execute("UPDATE webhook_deliveries SET due_at = now() WHERE id = $1", first.id)
    (second,) = await claim(c)
    assert (second.id, (await row_of(c, second))["attempts"]) == (first.id, 2)
    await deliveries.settle_failed(c, first, Failure.TIMEOUT, None, wait=5, pause=0)
    await deliveries.settle_delivered(c, first, 200)
    await deliveries.settle_gone(c, first)
    assert (await row_of(c, second))["due_at"] == second.leased_until
    unchanged = "SELECT disabled_at IS NULL AND failing_since IS NULL FROM webhook_endpoints WHERE id = $1"
    assert await c.fetchval(unchanged, first.endpoint_id)
    await deliveries.settle_delivered(c, second, 204)
    row = await row_of(c, second)
    assert (row["due_at"], row["answer"], row["error"]) == (None, 204, None)


async def test_an_event_of_a_newer_version_holds_up_no_other(c: Connection) -> None:
    user = new_user()
    await an_endpoint(c, user)
    newer, known = await ended_turn(c, user), await ended_turn(c, user)
    await c.execute("UPDATE webhook_deliveries SET status = 'postponed' WHERE task_id = $1", newer.id)
    assert [one.task_id for one in await claim(c)] == [known.id]


async def test_an_endpoint_with_many_events_leaves_room_for_others(c: Connection) -> None:
    busy, quiet = new_user(), new_user()
    first = await an_endpoint(c, busy)
    for _ in range(10):
        await ended_turn(c, busy)
    second = await an_endpoint(c, quiet)
    await ended_turn(c, quiet)
    claimed = [one.endpoint_id for one in await claim(c, limit=8, per_endpoint=4)]
    assert sorted(claimed) == sorted([first.id] * 4 + [second.id])
    assert await claim(c, besides=[first.id]) == []
    assert len(await claim(c, limit=3)) == 3


async def test_a_deletion_during_the_end_of_a_turn_fails_neither(database: Database, c: Connection) -> None:
    user = new_user()
    endpoint = await an_endpoint(c, user)
    assert user.user_id is not None
    async with database.transaction() as deleting:
        await endpoints.delete_endpoint(deleting, user.user_id, endpoint.id)
        ending = asyncio.create_task(ended_turn(c, user))
        async with database.connection() as watching:
            while not await watching.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not ending.done()
                await asyncio.sleep(0.01)  # until the end of the turn waits for the deletion
    await ending
    assert await claim(c) == []
