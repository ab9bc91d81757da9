"""Tests of what processes count: model calls, attempts, sweeps, batches of chunks, and the census of all tasks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from backend.chat import keys
from backend.chat.models import NewMessage, Role, TextPart
from backend.chat.outcomes import Operation, Outcome, ToolWork
from backend.chat.protocol.chunks import StartStep
from backend.chat.resources import Resources
from backend.chat.store import operations, tasks
from backend.chat.store.operators.census import TAKE, take_census
from backend.config import load_settings
from backend.errors import ProviderError
from backend.ids import SessionId, new_session_id, new_task_id
from backend.migrating import migrate
from backend.postgres import Connection, Database
from backend.resources import open_resources
from executor.llm.failures import CODES
from executor.llm.measured import MeasuredModel
from executor.llm.model import Prompt
from executor.llm.scripted import ScriptedModel
from executor.metrics import ExecutorMetrics
from executor.model_metrics import ModelMetrics
from executor.side_jobs.census import CensusTaker
from executor.side_jobs.sweeper import Sweeper
from tests.fakes.running import fake_server
from tests.integration.rows import a_session, a_task
from tests.integration.test_providers import opened
from tests.servers.redis import RedisNode
from tests.speed import limit


def value_of(text: bytes, sample: str) -> float:
    """Returns the value of a sample, 0 if it is not there."""
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text.decode(), re.MULTILINE)
    return float(found[1]) if found is not None else 0.0


def asking(text: str) -> Prompt:
    return Prompt("", (NewMessage(Role.USER, (TextPart(text),)),))


async def read(model: MeasuredModel, text: str, *, events: int | None = None) -> None:
    """Reads a whole answer, or its first events."""
    async with aclosing(model.stream(asking(text))) as stream:
        seen = 0
        async for _ in stream:
            seen += 1
            if seen == events:
                return


@asynccontextmanager
async def resources_on(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[Resources]:
    settings = load_settings(files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis")
    async with open_resources(settings) as resources:
        yield resources


async def an_operation(c: Connection, session: SessionId, name: str) -> Operation:
    work = ToolWork(new_task_id(), "create_agent", f"call-{name}", {})
    return await operations.register(c, session, work, limit=3600)


async def test_a_model_call_is_counted_by_its_end() -> None:
    registry = CollectorRegistry()
    model = MeasuredModel(ScriptedModel(), ModelMetrics(registry))
    await read(model, "/stream 3")
    await read(model, "/stream 3", events=1)
    with pytest.raises(ProviderError):
        await read(model, "/fail")
    text = generate_latest(registry)
    for outcome in ("completed", "abandoned", "provider_error"):
        assert value_of(text, f'model_calls_total{{model="{model.name}",outcome="{outcome}"}}') == 1, text.decode()
    assert value_of(text, f'model_call_seconds_count{{model="{model.name}"}}') == 3
    assert value_of(text, f'model_first_event_seconds_count{{model="{model.name}"}}') == 2
    assert value_of(text, f'model_tokens_total{{kind="output",model="{model.name}"}}') > 0


def test_the_series_of_a_configured_model_begin_at_0() -> None:
    """Prometheus sees no increase in a series that begins with its first failure."""
    registry = CollectorRegistry()
    ModelMetrics(registry).expect("m", CODES)
    text = generate_latest(registry).decode()
    for outcome in ("completed", "abandoned", "internal_error", "provider_error", "overloaded", "authentication"):
        assert f'model_calls_total{{model="m",outcome="{outcome}"}} 0.0' in text
    assert 'model_retries_total{code="overloaded",model="m"} 0.0' in text
    assert 'model_tokens_total{kind="output",model="m"} 0.0' in text
    assert 'model_call_seconds_count{model="m"} 0.0' in text


async def test_retried_failures_are_counted_by_code() -> None:
    registry = CollectorRegistry()
    async with fake_server("openai") as url, opened("openai", url) as wire:
        model = MeasuredModel(wire, ModelMetrics(registry))
        await read(model, "/status 503 2\n/say Hello")
        with pytest.raises(ProviderError):
            await read(model, "/status 401")
    text = generate_latest(registry)
    assert value_of(text, 'model_retries_total{code="overloaded",model="m"}') == 2, text.decode()
    assert value_of(text, 'model_calls_total{model="m",outcome="completed"}') == 1
    assert value_of(text, 'model_calls_total{model="m",outcome="authentication"}') == 1


async def test_the_census_counts_what_waits_and_what_has_not_ended(empty_postgres_dsn: str) -> None:
    await migrate(empty_postgres_dsn)
    async with Database.open(empty_postgres_dsn, size=2) as database, database.connection() as c:
        first = await take_census(c)
        assert {group.number for group in (*first.turns.values(), *first.operations.values())} == {0}
        session = await a_session(c)
        running = await a_task(c, session)
        await tasks.claim_new_task(c, running.id, "an-executor")
        waiting = await a_task(c, session, active=False)
        ready = await a_task(c, await a_session(c))
        ended = await a_task(c, await a_session(c))
        await c.execute("UPDATE tasks SET status = 'failed', active_session_id = NULL WHERE id = $1", ended.id)
        await c.execute("UPDATE tasks SET created_at = now() - interval '50 s' WHERE id = $1", waiting.id)
        await c.execute("UPDATE tasks SET active_since = now() - interval '70 s' WHERE id = $1", ready.id)
        pending, done = await an_operation(c, session, "a"), await an_operation(c, session, "b")
        await an_operation(c, session, "c")
        for operation in (pending, done):
            assert await operations.open_operation(c, operation, "1-1", limit=3600)
        await operations.continue_operation(c, done, Outcome(True, {}, None), {}, "note")
        census = await take_census(c)
    assert {name: group.number for name, group in census.turns.items()} == {"executor": 1, "turn": 2}
    assert {name: group.number for name, group in census.operations.items()} == {
        "unopened": 1,
        "pending": 1,
        "continuing": 1,
    }
    assert 70 <= census.turns["executor"].oldest < 70 + limit(60)
    assert 50 <= census.turns["turn"].oldest < 50 + limit(60)


async def test_the_census_reads_no_ended_task(c: Connection) -> None:
    """Its cost must not grow with what is stored."""
    await c.execute(
        "INSERT INTO sessions (id) SELECT 'stored-' || n FROM generate_series(1, 3000) n ON CONFLICT DO NOTHING"
    )
    await c.execute(
        "INSERT INTO tasks (id, session_id, quota_key, status, request) "
        "SELECT 'stored-' || n, 'stored-' || n, 'nobody', 'completed', '{}' FROM generate_series(1, 3000) n"
    )
    await c.execute("ANALYZE tasks")
    plan = "\n".join(row[0] for row in await c.fetch(f"EXPLAIN {TAKE}"))
    assert "Seq Scan on tasks" not in plan, plan


async def test_one_executor_takes_the_census_and_another_follows(postgres_dsn: str, redis_dsn: str) -> None:
    async with resources_on(postgres_dsn, redis_dsn) as one, resources_on(postgres_dsn, redis_dsn) as other:
        takers = CensusTaker(one), CensusTaker(other)
        for taker in takers:
            await taker.take_if_due()
        assert [taker.newest is None for taker in takers] == [False, True]
        assert takers[0].newest is not None
        assert takers[0].newest.redis is not None
        assert takers[0].newest.redis.used > 0
        await one.redis.delete(keys.CENSUS)
        following = CensusTaker(other)
        await following.take_if_due()
        assert following.newest is not None


async def test_every_executor_takes_the_census_while_redis_is_away(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with resources_on(postgres_dsn, private_redis.dsn) as resources:
        await private_redis.kill()
        taker = CensusTaker(resources)
        await taker.take_if_due()
        assert taker.newest is not None
        assert taker.newest.redis is None


async def test_the_sweeper_counts_sweeps_and_repairs(postgres_dsn: str, redis_dsn: str) -> None:
    metrics = ExecutorMetrics()
    async with resources_on(postgres_dsn, redis_dsn) as resources:
        await resources.redis.delete(keys.CENSUS)  # a taker of another test holds it for twenty seconds
        async with resources.database.connection() as c:
            lost = await a_task(c, await a_session(c))
            await c.execute("UPDATE tasks SET active_since = now() - interval '1 hour' WHERE id = $1", lost.id)
        sweeping = asyncio.create_task(Sweeper(resources, metrics=metrics).run())
        try:
            async with asyncio.timeout(limit(30)):
                while not value_of(metrics.render(), 'sweep_repairs_total{repair="turn_published"}'):
                    await asyncio.sleep(0.05)
                while not value_of(metrics.render(), 'turns_waiting{waits_for="executor"}'):
                    await asyncio.sleep(0.05)
        finally:
            sweeping.cancel()
    text = metrics.render()
    assert value_of(text, 'sweeps_total{result="swept"}') >= 1
    assert value_of(text, "redis_memory_bytes") > 0


async def test_waits_for_connections_and_batches_of_chunks_are_timed(postgres_dsn: str, redis_dsn: str) -> None:
    metrics = ExecutorMetrics()
    async with resources_on(postgres_dsn, redis_dsn) as resources:
        resources.report_to(pool_wait=metrics.count_pool_wait, appended=metrics.count_appended)
        await resources.database.ping()
        stream = keys.stream_key(new_session_id(), new_task_id())
        writer = resources.flusher.writer(stream, 1001, create=True)
        await writer.append()  # nothing, so nothing waits
        await writer.append(StartStep())
        await writer.drain()
        await writer.append(StartStep())
        await writer.drain()
        assert await resources.streams.memory_of([stream, "chat:stream:{none}:none"]) > 100
        await resources.streams.delete(stream)
    text = metrics.render()
    assert value_of(text, "db_pool_wait_seconds_count") == 1
    assert value_of(text, "chunk_append_seconds_count") == 2
    assert 0 < value_of(text, "chunk_append_seconds_sum") < limit(5)
