"""Deliveries of webhooks in the store: when they are written, and who may send them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from backend.chat.models import Caller, Task, TaskStatus, Usage
from backend.chat.store import sessions, tasks
from backend.chat.store.webhooks import deliveries, endpoints, pushes
from backend.chat.store.webhooks.deliveries import ClaimedDelivery, Event, Failure
from backend.chat.store.webhooks.endpoints import Endpoint
from backend.chat.store.webhooks.pushes import Push
from backend.errors import TooManyWebhooks
from backend.ids import UserId, new_executor_id
from backend.postgres import Connection, Database
from tests.integration.rows import NOBODY, a_session, a_task, new_user
from tests.speed import limit


async def an_endpoint(
    c: Connection, user: Caller, events: Sequence[Event] = tuple(Event), url: str = "https://example.com/"
) -> Endpoint:
    assert user.user_id is not None
    async with c.transaction():
        return await endpoints.add_endpoint(
            c, user.user_id, url, events, with_text=False, secret="whsec_c2VjcmV0", most=9
        )


def id_of(user: Caller) -> UserId:
    assert user.user_id is not None
    return user.user_id


async def ended_turn(c: Connection, user: Caller) -> Task:
    task = await a_task(c, await a_session(c, user), user)
    claimed = await tasks.claim_new_task(c, task.id, new_executor_id())
    assert claimed is not None
    await tasks.finish_task(c, claimed, status=TaskStatus.COMPLETED, error=None, usage=Usage())
    return claimed


async def claim(c: Connection, **bounds: Any) -> list[ClaimedDelivery]:
    return await deliveries.claim_due(c, **{"limit": 100, "per_endpoint": 100, "per_user": 100, **bounds})


async def row_of(c: Connection, delivery: ClaimedDelivery) -> dict[str, Any]:
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
    await deliveries.settle_failed(c, first, Failure.TIMEOUT, None, wait=5, pause_for=0)
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


async def test_the_endpoints_of_one_user_leave_room_for_others(c: Connection) -> None:
    busy, quiet = new_user(), new_user()
    for _ in range(3):
        await an_endpoint(c, busy)
    for _ in range(5):
        await ended_turn(c, busy)
    await an_endpoint(c, quiet)
    await ended_turn(c, quiet)
    claimed = Counter(one.user_id for one in await claim(c, limit=32, per_endpoint=4, per_user=6))
    assert claimed == {busy.user_id: 6, quiet.user_id: 1}
    assert await claim(c, per_endpoint=4, per_user=6, sending=claimed) == []
    assert len(await claim(c, per_endpoint=4, per_user=6, sending={busy.user_id: 5})) == 1
    assert len(await claim(c, per_endpoint=4, per_user=6)) == 6


_WAITING_FOR_A_LOCK = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"""


async def until_waiting(database: Database, many: int, *tasks: asyncio.Task[Any]) -> None:
    """Waits until so many of these tasks wait for a lock, or have ended."""
    async with asyncio.timeout(limit(30)), database.connection() as watching:
        while True:
            locked = await watching.fetchval(_WAITING_FOR_A_LOCK)
            if locked + sum(task.done() for task in tasks) >= many:
                return
            await asyncio.sleep(0.01)


async def delete_the_endpoint(c: Connection, claimed: ClaimedDelivery) -> None:
    await endpoints.delete_endpoint(c, claimed.user_id, claimed.endpoint_id)


async def disable(c: Connection, claimed: ClaimedDelivery) -> None:
    await endpoints.change_endpoint(c, claimed.user_id, claimed.endpoint_id, events=None, with_text=None, enabled=False)


async def forget(c: Connection, claimed: ClaimedDelivery) -> None:
    await sessions.forget_user(c, claimed.user_id)


async def give_up_old(c: Connection, claimed: ClaimedDelivery) -> None:
    await deliveries.settle_failed(c, claimed, Failure.REFUSED, 500, wait=5, pause_for=5)


async def prune(c: Connection, _: ClaimedDelivery) -> None:
    await deliveries.prune(c, 100)


@pytest.mark.parametrize("act", [delete_the_endpoint, disable, forget, give_up_old, prune])
@pytest.mark.parametrize("first_to_end", [0, 1])
@pytest.mark.parametrize("held", [0, 1])
async def test_a_session_is_deleted_while_its_deliveries_are_changed(
    database: Database,
    c: Connection,
    act: Callable[[Connection, ClaimedDelivery], Awaitable[None]],
    first_to_end: int,
    held: int,
) -> None:
    user = new_user()
    session = await a_session(c, user)
    begun = [await a_task(c, session, user, active=False) for _ in range(2)]
    await an_endpoint(c, user)
    for task in (begun[first_to_end], begun[1 - first_to_end]):
        owned = await tasks.claim_task(
            c, task.id, new_executor_id(), seen_owner=None, seen_attempt=0, only_active=False
        )
        assert owned is not None
        await tasks.finish_task(c, owned, status=TaskStatus.COMPLETED, error=None, usage=Usage())
    other = await ended_turn(c, user)
    claimed = next(one for one in await claim(c) if one.task_id == other.id)
    old = "UPDATE webhook_deliveries SET due_at = now(), queued_at = now() - interval '9 days', created_at = queued_at"
    await c.execute(f"{old} - interval '9 days' WHERE id <> $1", claimed.id)
    ids = [
        row["id"] for row in await c.fetch("SELECT id FROM webhook_deliveries WHERE id <> $1 ORDER BY id", claimed.id)
    ]

    async def changing() -> None:
        async with database.transaction() as own:
            await act(own, claimed)

    async def deleting() -> None:
        async with database.transaction() as own:
            assert await sessions.lock_session(own, session)
            await sessions.delete_session(own, session)

    async with database.transaction() as holding:
        await holding.execute("SELECT FROM webhook_deliveries WHERE id = $1 FOR UPDATE", ids[held])
        change = asyncio.create_task(changing())
        await until_waiting(database, 1, change)
        deletion = asyncio.create_task(deleting())
        await until_waiting(database, 2, change, deletion)
    await asyncio.gather(change, deletion)
    assert await c.fetchval("SELECT count(*) FROM webhook_deliveries WHERE id = ANY($1)", ids) == 0


async def due(c: Connection) -> int:
    """Returns the number of rows that each look for due deliveries reads."""
    found: int = await c.fetchval("SELECT count(*) FROM webhook_deliveries WHERE due_at <= now()")
    return found


async def test_what_waits_for_a_paused_endpoint_is_not_read_again(database: Database, c: Connection) -> None:
    user = new_user()
    endpoint = await an_endpoint(c, user)
    for _ in range(3):
        await ended_turn(c, user)
    first, second = await claim(c, per_endpoint=2)
    async with database.transaction() as own:
        await deliveries.settle_failed(own, first, Failure.REFUSED, 500, wait=900, pause_for=600)
    await deliveries.set_aside(c, 100)
    assert await due(c) == 0
    async with database.transaction() as own:  # it prolongs the pause
        await deliveries.settle_failed(own, second, Failure.REFUSED, 500, wait=900, pause_for=1200)
    assert await due(c) == 0
    await ended_turn(c, user)
    await deliveries.set_aside(c, 100)
    assert await due(c) == 0
    async with database.transaction() as own:
        changed = await endpoints.change_endpoint(
            own, id_of(user), endpoint.id, events=None, with_text=None, enabled=True
        )
    assert changed.paused_until is None
    later = await claim(c)
    assert len(later) == 2  # the two that failed keep their own time
    assert {first.id, second.id}.isdisjoint(one.id for one in later)


async def test_an_endpoint_that_works_again_gets_what_waited_for_its_pause(database: Database, c: Connection) -> None:
    user = new_user()
    await an_endpoint(c, user)
    for _ in range(3):
        await ended_turn(c, user)
    failing, working = await claim(c, per_endpoint=2)
    async with database.transaction() as own:
        await deliveries.settle_failed(own, failing, Failure.REFUSED, 500, wait=900, pause_for=600)
    await deliveries.set_aside(c, 100)
    assert await claim(c) == []
    async with database.transaction() as own:
        await deliveries.settle_delivered(own, working, 200)
    (third,) = await claim(c)
    assert third.id not in (failing.id, working.id)


async def test_what_has_waited_too_long_for_a_pause_is_given_up_by_the_next_failure(
    database: Database, c: Connection
) -> None:
    user = new_user()
    endpoint = await an_endpoint(c, user)
    for _ in range(2):
        await ended_turn(c, user)
    (first,) = await claim(c, per_endpoint=1)
    async with database.transaction() as own:
        await deliveries.settle_failed(own, first, Failure.REFUSED, 500, wait=900, pause_for=600)
    await deliveries.set_aside(c, 100)
    await c.execute("UPDATE webhook_endpoints SET paused_until = now() - interval '1 s' WHERE id = $1", endpoint.id)
    await c.execute(
        """
        UPDATE webhook_deliveries d SET queued_at = now() - interval '25 h',
          due_at = CASE WHEN d.id = $2 THEN now() - interval '2 s' ELSE e.paused_until END
        FROM webhook_endpoints e WHERE e.id = $1 AND d.endpoint_id = e.id""",
        endpoint.id,
        first.id,
    )
    (again,) = await claim(c, per_endpoint=1)
    assert again.id == first.id
    async with database.transaction() as own:
        await deliveries.settle_failed(own, again, Failure.REFUSED, 500, wait=None, pause_for=600)
    rows = await c.fetch("SELECT due_at, error FROM webhook_deliveries WHERE endpoint_id = $1", endpoint.id)
    assert sorted(map(tuple, rows), key=str) == [(None, Failure.REFUSED), (None, Failure.TOO_LATE)]


async def test_an_event_of_a_turn_that_ended_while_the_endpoint_was_disabled_does_not_wait(
    database: Database, c: Connection
) -> None:
    user = new_user()
    endpoint = await an_endpoint(c, user)
    async with database.transaction() as ending:
        task = await ended_turn(ending, user)
        async with database.transaction() as own:
            await endpoints.change_endpoint(own, id_of(user), endpoint.id, events=None, with_text=None, enabled=False)
    if await deliveries.any_due(c):
        await deliveries.set_aside(c, 100)
    row = await c.fetchrow("SELECT due_at, error FROM webhook_deliveries WHERE task_id = $1", task.id)
    assert row is not None
    assert (row["due_at"], row["error"]) == (None, Failure.DISABLED)


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


async def test_pushes_that_are_over_give_way_to_new_ones(c: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushes, "MOST_OF_USER", 2)
    monkeypatch.setattr(pushes, "MOST_OF_TASK", 1)
    user = new_user()
    session_id = await a_session(c, user)
    running, over = await a_task(c, session_id, user), await ended_turn(c, user)

    async def push(task: Task, id: str) -> None:
        async with c.transaction():
            await pushes.set_push(c, id_of(user), task, Push(task.id, id, "https://example.com/"))

    await push(running, "a")
    await push(running, "a")  # changes it
    with pytest.raises(TooManyWebhooks):
        await push(running, "b")
    await push(over, "c")
    (told,) = await claim(c)  # the task had ended before
    assert (told.task_id, told.push, told.secrets) == (over.id, True, ())
    with pytest.raises(TooManyWebhooks):
        await push(await ended_turn(c, user), "d")
    async with c.transaction():
        await deliveries.settle_delivered(c, told, 200)
    await push(await ended_turn(c, user), "d")
    assert await pushes.pushes_of(c, user, over.id) == []
    assert await endpoints.list_endpoints(c, id_of(user)) == []
    async with c.transaction():
        await sessions.delete_session(c, session_id)
    assert await pushes.pushes_of(c, user, running.id) == []
