"""Outcomes that come by `chat:completions`, over a Redis of the test's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis

from backend.api.completion_loop import CompletionLoop, LoopPace
from backend.chat import cancelling, flows, operations, tasks
from backend.chat.completing import Completed, complete_operation
from backend.chat.completions import GROUP, Completion, publish_completion
from backend.chat.flows import House
from backend.chat.keys import COMPLETIONS, DEAD_COMPLETIONS
from backend.chat.models import Caller, TaskStatus, TurnRequest
from backend.chat.outcomes import Operation, Outcome, ToolWork
from backend.config import load_settings
from backend.ids import OperationId, new_session_id
from backend.migrating import migrate
from backend.resources import Resources, open_resources
from tests.servers.postgres import PostgresNode
from tests.servers.redis import RedisNode
from tests.speed import limit

FAST = LoopPace(stale_after=limit(0.3), look_every=0.1)


@pytest.fixture
async def house(postgres_dsn: str, private_redis: RedisNode) -> AsyncIterator[Resources]:
    settings = load_settings(files=(), database_url=postgres_dsn, redis_url=private_redis.dsn, queue="redis")
    async with open_resources(settings) as opened:
        yield opened


async def new_operation(house: Resources) -> Operation:
    """One that a service has accepted, in a session of its own whose turn has ended."""
    session = new_session_id()
    caller = Caller(None, f"completions {session}")
    turn, _ = await flows.start_turn(house, caller, session, TurnRequest("Go."), message_key=None, create_session=True)
    assert await cancelling.end_unowned(house, turn, TaskStatus.COMPLETED)
    work = ToolWork(turn.id, "a_tool", f"call_{turn.number}", {})
    async with house.database.connection() as c:
        operation = await operations.register(c, session, work, limit=3600)
        await operations.open_operation(c, operation, "0-0", limit=3600)
    return operation


async def status_of(house: Resources, operation: Operation) -> TaskStatus:
    async with house.database.connection() as c:
        return (await tasks.get_task(c, operation.task_id)).status


async def applied(house: Resources, *expected: Operation) -> None:
    async with asyncio.timeout(limit(20)):
        for operation in expected:
            while await status_of(house, operation) is not TaskStatus.QUEUED:
                await asyncio.sleep(0.02)


async def finished(redis: Redis) -> None:
    """Waits until the group has nothing pending and nothing to come."""
    async with asyncio.timeout(limit(20)):
        while True:
            groups: Any = await redis.xinfo_groups(COMPLETIONS)
            facts = next(group for group in groups if group["name"] == GROUP.encode())
            if not facts["pending"] and not facts["lag"]:
                return
            await asyncio.sleep(0.02)


async def looked_again(redis: Redis) -> None:
    """Waits until the loop has trimmed twice; it asks for the consumers then, and nobody else does."""
    async with asyncio.timeout(limit(20)):
        before = await _looks(redis)
        while await _looks(redis) < before + 2:
            await asyncio.sleep(0.02)


async def _looks(redis: Redis) -> int:
    stats: Any = await redis.info("commandstats")
    return int(stats.get("cmdstat_xinfo|consumers", {"calls": 0})["calls"])


async def test_an_entry_of_another_service_is_applied_and_taken_off(house: Resources) -> None:
    operation = await new_operation(house)
    async with CompletionLoop.running(house, "one", FAST) as loop:
        said = {"operation_id": operation.id, "task_id": operation.task_id, "success": True, "result": "ok", "new": 1}
        await house.redis.xadd(COMPLETIONS, {"data": json.dumps(said)})
        await applied(house, operation)
        await finished(house.redis)
        assert loop.healthy
    consumers: Any = await house.redis.xinfo_consumers(COMPLETIONS, GROUP)
    assert consumers == [], "whoever leaves takes its name along"


async def test_entries_that_come_twice_or_too_late_do_no_harm(house: Resources) -> None:
    first, second = await new_operation(house), await new_operation(house)
    async with CompletionLoop.running(house, "one", FAST):
        for operation in (first, first, second, first):
            await publish_completion(house.redis, Completion(operation.id, Outcome(True, "ok")))
        await publish_completion(house.redis, Completion(first.id, Outcome(False, error="no")))
        await applied(house, first, second)
        await finished(house.redis)
    async with house.database.connection() as c:
        assert (await operations.get_operation(c, first.id)).digest == Outcome(True, "ok").digest
    assert not await house.redis.exists(DEAD_COMPLETIONS)


async def test_of_two_outcomes_that_come_together_the_first_wins(
    house: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is held up for as long as the second could overtake it."""
    operation, overtaken = await new_operation(house), asyncio.Event()

    async def complete(house: House, id: OperationId, outcome: Outcome) -> Completed:
        if outcome.success:
            with suppress(TimeoutError):
                await asyncio.wait_for(overtaken.wait(), limit(0.5))
        try:
            return await complete_operation(house, id, outcome)
        finally:
            overtaken.set()

    monkeypatch.setattr("backend.api.completion_loop.complete_operation", complete)
    for outcome in (Outcome(True, "ok"), Outcome(False, error="no")):
        await publish_completion(house.redis, Completion(operation.id, outcome))
    async with CompletionLoop.running(house, "one", FAST):
        await applied(house, operation)
        await finished(house.redis)
    async with house.database.connection() as c:
        assert (await operations.get_operation(c, operation.id)).digest == Outcome(True, "ok").digest


UNKNOWN = '{"operation_id": "6f1c6bd8-0000-4000-8000-000000000000", "success": true}'
REFUSED = [
    ({"other": "x"}, "no field `data`"),
    ({"data": "{"}, "not JSON"),
    ({"data": "[]"}, "names no operation"),
    ({"data": '{"operation_id": "x"}'}, "not an outcome"),
    ({"data": '{"operation_id": "x", "success": true, "error": "y"}'}, "not an outcome"),
    ({"data": UNKNOWN}, "unknown operation"),
]


async def test_what_cannot_be_applied_is_tried_five_times_and_kept_apart(house: Resources) -> None:
    operation = await new_operation(house)
    async with CompletionLoop.running(house, "one", FAST):
        for fields, _ in REFUSED:
            await house.redis.xadd(COMPLETIONS, dict(fields))
        await publish_completion(house.redis, Completion(operation.id, Outcome(True)))
        await applied(house, operation)
        async with asyncio.timeout(limit(30)):
            while await house.redis.xlen(DEAD_COMPLETIONS) < len(REFUSED):
                await asyncio.sleep(0.05)
        await finished(house.redis)
    letters = [letter for _, letter in await house.redis.xrange(DEAD_COMPLETIONS)]
    told = sorted((letter[b"data"].decode(), letter[b"reason"].decode()) for letter in letters)
    assert told == sorted((fields.get("data", ""), reason) for fields, reason in REFUSED)


async def test_what_a_dead_consumer_had_is_applied_by_another(house: Resources) -> None:
    operation = await new_operation(house)
    await house.redis.xgroup_create(COMPLETIONS, GROUP, "0", mkstream=True)
    await publish_completion(house.redis, Completion(operation.id, Outcome(True)))
    await house.redis.xreadgroup(GROUP, "dead", {COMPLETIONS: ">"})
    async with CompletionLoop.running(house, "other", FAST):
        await applied(house, operation)
        await finished(house.redis)


async def test_a_process_that_comes_back_takes_up_what_it_had_at_once(house: Resources) -> None:
    operation = await new_operation(house)
    await house.redis.xgroup_create(COMPLETIONS, GROUP, "0", mkstream=True)
    await publish_completion(house.redis, Completion(operation.id, Outcome(True)))
    await house.redis.xreadgroup(GROUP, "same", {COMPLETIONS: ">"})
    async with CompletionLoop.running(house, "same", LoopPace(stale_after=3600, look_every=3600)):
        await applied(house, operation)
        await finished(house.redis)


async def test_a_redis_that_was_emptied_has_its_group_again(house: Resources) -> None:
    before, after = await new_operation(house), await new_operation(house)
    async with CompletionLoop.running(house, "one", FAST):
        await publish_completion(house.redis, Completion(before.id, Outcome(True)))
        await applied(house, before)
        await house.redis.flushall()
        await publish_completion(house.redis, Completion(after.id, Outcome(True)))
        await applied(house, after)


async def test_nothing_is_trimmed_that_any_group_has_not_finished(house: Resources) -> None:
    known = [await new_operation(house) for _ in range(3)]
    await house.redis.xgroup_create(COMPLETIONS, "auditors", "0", mkstream=True)
    async with CompletionLoop.running(house, "one", FAST):
        for operation in known:
            await publish_completion(house.redis, Completion(operation.id, Outcome(True)))
        await applied(house, *known)
        await finished(house.redis)
        await looked_again(house.redis)
        assert await house.redis.xlen(COMPLETIONS) == 3
        reply: Any = await house.redis.xreadgroup("auditors", "a", {COMPLETIONS: ">"})
        ids = [id for id, _ in reply[0][1]]
        await house.redis.xack(COMPLETIONS, "auditors", ids[0])
        async with asyncio.timeout(limit(20)):
            while await house.redis.xlen(COMPLETIONS) != 2:
                await asyncio.sleep(0.05)
        await house.redis.xack(COMPLETIONS, "auditors", *ids[1:])
        async with asyncio.timeout(limit(20)):
            while await house.redis.xlen(COMPLETIONS) != 1:
                await asyncio.sleep(0.05)


async def test_a_loop_waits_while_postgres_is_away_and_counts_nothing(
    private_postgres: PostgresNode, private_redis: RedisNode
) -> None:
    await migrate(private_postgres.dsn)
    settings = load_settings(files=(), database_url=private_postgres.dsn, redis_url=private_redis.dsn, queue="redis")
    async with open_resources(settings) as house:
        operation = await new_operation(house)
        async with CompletionLoop.running(house, "one", FAST):
            await private_postgres.kill()
            await publish_completion(house.redis, Completion(operation.id, Outcome(True)))
            async with asyncio.timeout(limit(20)):
                while not (await house.redis.xpending(COMPLETIONS, GROUP))["pending"]:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(2)
            await private_postgres.start()
            await applied(house, operation)
            await finished(house.redis)
        assert not await house.redis.exists(DEAD_COMPLETIONS)
