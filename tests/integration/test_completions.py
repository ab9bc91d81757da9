"""Tests of outcomes in the stream `chat:completions`, with a Redis for each test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis

from backend.api.completion_loop import CompletionLoop, LoopTimings
from backend.chat.flows import finish, start
from backend.chat.flows.complete import Completed, complete_operation
from backend.chat.keys import COMPLETIONS, DEAD_COMPLETIONS
from backend.chat.models import Caller, TaskStatus, TurnRequest
from backend.chat.outcomes import Operation, Outcome, ToolWork
from backend.chat.queue.completions import GROUP, Completion, publish_completion
from backend.chat.resources import Resources
from backend.chat.store import operations, tasks
from backend.config import load_settings
from backend.ids import OperationId, new_session_id
from backend.migrating import migrate
from backend.resources import open_resources
from tests.servers.postgres import PostgresNode
from tests.servers.redis import RedisNode
from tests.speed import limit

FAST = LoopTimings(stale_after=limit(0.3), claim_every=0.1)


@pytest.fixture
async def resources(postgres_dsn: str, private_redis: RedisNode) -> AsyncIterator[Resources]:
    settings = load_settings(files=(), database_url=postgres_dsn, redis_url=private_redis.dsn, queue="redis")
    async with open_resources(settings) as opened:
        yield opened


async def new_operation(resources: Resources) -> Operation:
    """Creates an operation that a service has accepted, in a new session whose turn has ended."""
    session = new_session_id()
    caller = Caller(None, f"completions {session}")
    started = await start.start_turn(
        resources, caller, session, TurnRequest("Go."), message_key=None, create_session=True
    )
    turn = started.task
    assert await finish.end_unowned(resources, turn, TaskStatus.COMPLETED)
    work = ToolWork(turn.id, "a_tool", f"call_{turn.number}", {})
    async with resources.database.connection() as c:
        operation = await operations.register(c, session, work, limit=3600)
        await operations.open_operation(c, operation, "0-0", limit=3600)
    return operation


async def status_of(resources: Resources, operation: Operation) -> TaskStatus:
    async with resources.database.connection() as c:
        return (await tasks.get_task(c, operation.task_id)).status


async def applied(resources: Resources, *expected: Operation) -> None:
    async with asyncio.timeout(limit(20)):
        for operation in expected:
            while await status_of(resources, operation) is not TaskStatus.QUEUED:
                await asyncio.sleep(0.02)


async def finished(redis: Redis) -> None:
    """Waits until the group has no pending and no undelivered entry."""
    async with asyncio.timeout(limit(20)):
        while True:
            groups: Any = await redis.xinfo_groups(COMPLETIONS)
            facts = next(group for group in groups if group["name"] == GROUP.encode())
            if not facts["pending"] and not facts["lag"]:
                return
            await asyncio.sleep(0.02)


async def trimmed_again(redis: Redis) -> None:
    """Waits until the loop has trimmed twice. Only the trimming calls XINFO CONSUMERS."""
    async with asyncio.timeout(limit(20)):
        before = await _trims(redis)
        while await _trims(redis) < before + 2:
            await asyncio.sleep(0.02)


async def _trims(redis: Redis) -> int:
    stats: Any = await redis.info("commandstats")
    return int(stats.get("cmdstat_xinfo|consumers", {"calls": 0})["calls"])


async def test_an_entry_of_another_service_is_applied_and_acknowledged(resources: Resources) -> None:
    operation = await new_operation(resources)
    async with CompletionLoop.running(resources, "one", FAST) as loop:
        entry = {"operation_id": operation.id, "task_id": operation.task_id, "success": True, "result": "ok", "new": 1}
        await resources.redis.xadd(COMPLETIONS, {"data": json.dumps(entry)})
        await applied(resources, operation)
        await finished(resources.redis)
        assert loop.healthy
    consumers: Any = await resources.redis.xinfo_consumers(COMPLETIONS, GROUP)
    assert consumers == [], "a consumer that stops removes its name"


async def test_repeated_and_late_entries_change_nothing(resources: Resources) -> None:
    first, second = await new_operation(resources), await new_operation(resources)
    async with CompletionLoop.running(resources, "one", FAST):
        for operation in (first, first, second, first):
            await publish_completion(resources.redis, Completion(operation.id, Outcome(True, "ok")))
        await publish_completion(resources.redis, Completion(first.id, Outcome(False, error="no")))
        await applied(resources, first, second)
        await finished(resources.redis)
    async with resources.database.connection() as c:
        assert (await operations.get_operation(c, first.id)).digest == Outcome(True, "ok").digest
    assert not await resources.redis.exists(DEAD_COMPLETIONS)


async def test_the_first_of_two_concurrent_outcomes_wins(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first outcome is delayed long enough for the second to overtake it."""
    operation, overtaken = await new_operation(resources), asyncio.Event()

    async def complete(resources: Resources, id: OperationId, outcome: Outcome) -> Completed:
        if outcome.success:
            with suppress(TimeoutError):
                await asyncio.wait_for(overtaken.wait(), limit(0.5))
        try:
            return await complete_operation(resources, id, outcome)
        finally:
            overtaken.set()

    monkeypatch.setattr("backend.api.completion_loop.complete_operation", complete)
    for outcome in (Outcome(True, "ok"), Outcome(False, error="no")):
        await publish_completion(resources.redis, Completion(operation.id, outcome))
    async with CompletionLoop.running(resources, "one", FAST):
        await applied(resources, operation)
        await finished(resources.redis)
    async with resources.database.connection() as c:
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


async def test_an_entry_that_cannot_be_applied_becomes_a_dead_letter(resources: Resources) -> None:
    operation = await new_operation(resources)
    async with CompletionLoop.running(resources, "one", FAST):
        for fields, _ in REFUSED:
            await resources.redis.xadd(COMPLETIONS, dict(fields))
        await publish_completion(resources.redis, Completion(operation.id, Outcome(True)))
        await applied(resources, operation)
        async with asyncio.timeout(limit(30)):
            while await resources.redis.xlen(DEAD_COMPLETIONS) < len(REFUSED):
                await asyncio.sleep(0.05)
        await finished(resources.redis)
    dead_letters = [dead_letter for _, dead_letter in await resources.redis.xrange(DEAD_COMPLETIONS)]
    refused = sorted((dead_letter[b"data"].decode(), dead_letter[b"reason"].decode()) for dead_letter in dead_letters)
    assert refused == sorted((fields.get("data", ""), reason) for fields, reason in REFUSED)


async def test_entries_of_a_dead_consumer_are_applied_by_another_one(resources: Resources) -> None:
    operation = await new_operation(resources)
    await resources.redis.xgroup_create(COMPLETIONS, GROUP, "0", mkstream=True)
    await publish_completion(resources.redis, Completion(operation.id, Outcome(True)))
    await resources.redis.xreadgroup(GROUP, "dead", {COMPLETIONS: ">"})
    async with CompletionLoop.running(resources, "other", FAST):
        await applied(resources, operation)
        await finished(resources.redis)


async def test_a_restarted_process_applies_its_pending_entries_at_once(resources: Resources) -> None:
    operation = await new_operation(resources)
    await resources.redis.xgroup_create(COMPLETIONS, GROUP, "0", mkstream=True)
    await publish_completion(resources.redis, Completion(operation.id, Outcome(True)))
    await resources.redis.xreadgroup(GROUP, "same", {COMPLETIONS: ">"})
    async with CompletionLoop.running(resources, "same", LoopTimings(stale_after=3600, claim_every=3600)):
        await applied(resources, operation)
        await finished(resources.redis)


async def test_the_consumer_group_is_created_again_after_redis_was_emptied(resources: Resources) -> None:
    before, after = await new_operation(resources), await new_operation(resources)
    async with CompletionLoop.running(resources, "one", FAST):
        await publish_completion(resources.redis, Completion(before.id, Outcome(True)))
        await applied(resources, before)
        await resources.redis.flushall()
        await publish_completion(resources.redis, Completion(after.id, Outcome(True)))
        await applied(resources, after)


async def test_an_entry_is_trimmed_only_after_every_group_has_acknowledged_it(resources: Resources) -> None:
    known = [await new_operation(resources) for _ in range(3)]
    await resources.redis.xgroup_create(COMPLETIONS, "auditors", "0", mkstream=True)
    async with CompletionLoop.running(resources, "one", FAST):
        for operation in known:
            await publish_completion(resources.redis, Completion(operation.id, Outcome(True)))
        await applied(resources, *known)
        await finished(resources.redis)
        await trimmed_again(resources.redis)
        assert await resources.redis.xlen(COMPLETIONS) == 3
        reply: Any = await resources.redis.xreadgroup("auditors", "a", {COMPLETIONS: ">"})
        ids = [id for id, _ in reply[0][1]]
        await resources.redis.xack(COMPLETIONS, "auditors", ids[0])
        async with asyncio.timeout(limit(20)):
            while await resources.redis.xlen(COMPLETIONS) != 2:
                await asyncio.sleep(0.05)
        await resources.redis.xack(COMPLETIONS, "auditors", *ids[1:])
        async with asyncio.timeout(limit(20)):
            while await resources.redis.xlen(COMPLETIONS) != 1:
                await asyncio.sleep(0.05)


async def test_an_outage_of_postgres_does_not_count_as_failed_attempts(
    private_postgres: PostgresNode, private_redis: RedisNode
) -> None:
    await migrate(private_postgres.dsn)
    settings = load_settings(files=(), database_url=private_postgres.dsn, redis_url=private_redis.dsn, queue="redis")
    async with open_resources(settings) as resources:
        operation = await new_operation(resources)
        async with CompletionLoop.running(resources, "one", FAST):
            await private_postgres.kill()
            await publish_completion(resources.redis, Completion(operation.id, Outcome(True)))
            async with asyncio.timeout(limit(20)):
                while not (await resources.redis.xpending(COMPLETIONS, GROUP))["pending"]:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(2)
            await private_postgres.start()
            await applied(resources, operation)
            await finished(resources.redis)
        assert not await resources.redis.exists(DEAD_COMPLETIONS)
