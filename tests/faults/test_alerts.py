"""Alerts fire: a real Prometheus scrapes a system in trouble, with rules in which a minute lasts two seconds.

A trouble lasts until its alert fires.

`tests/integration/test_alert_rules.py` has the alerts whose cause takes too long here: clocks, slow models and stores.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from redis.asyncio import Redis

from backend.chat import keys
from backend.chat.outcomes import ToolWork
from backend.chat.queue.completions import GROUP
from backend.chat.queue.redis_consumer import BODY, REASON
from backend.chat.store import operations
from backend.ids import SessionId, new_task_id
from backend.migrating import migrate
from backend.postgres import Database
from tests.alert_rules import RULES, shortened
from tests.e2e.chat_api import asked, converse, open_session
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.faults.owners import postgres_connection
from tests.servers.postgres import PostgresNode
from tests.servers.prometheus import Prometheus, prometheus
from tests.servers.redis import RedisNode
from tests.speed import lasting, limit

MINUTE = min(lasting(2), 6)
"""Seconds that a minute of the rules lasts. The test takes about 25 of these minutes."""
SCRAPES = 4
"""Scrapes a minute. Each may take until the next one: it asks the stores, and a busy machine is slow."""
OF_SLOW_MACHINES = {"CopilotSlowFirstChunk", "CopilotSlowAppends", "CopilotPoolWaits"}
"""Alerts that this test does not cause, and a busy machine may."""
WITHIN = limit(60)
SLOTS = 4
SWEEP_LOCK = 7_273_001
"""The number of the sweeper's advisory lock (`backend/chat/store/executors.py`)."""


@pytest.fixture
async def stack(private_postgres: PostgresNode, private_redis: RedisNode, tmp_path: Path) -> AsyncIterator[Stack]:
    await migrate(private_postgres.dsn)
    servers_file = tmp_path / "mcp.json"
    servers_file.write_text('{"mcpServers": {"none": {"command": "/no/such/program"}}}')
    async with open_stack(
        Servers(private_postgres.dsn, private_redis.dsn),
        tmp_path,
        EXECUTOR_CONCURRENCY=str(SLOTS),
        MCP_SERVERS_FILE=str(servers_file),
        DB_POOL_SIZE="4",
        SHUTDOWN_GRACE="1",  # the turns that still run at the end would need hours
    ) as stack:
        yield stack


@pytest.fixture
async def watch(stack: Stack, tmp_path: Path) -> AsyncIterator[Prometheus]:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    (folder / "alerts.yml").write_text(shortened(RULES.read_text(), MINUTE))
    jobs = {"copilot-api": stack.apis[0].port, "copilot-executor": stack.executors[0].port}
    every = f"{round(MINUTE / SCRAPES * 1000)}ms"
    document = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for name, port in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(document))
    async with prometheus(folder) as server:
        yield server


async def expire_an_operation(stack: Stack, session: str) -> None:
    async with Database.open(stack.servers.postgres, size=2) as database, database.transaction() as c:
        work = ToolWork(new_task_id(), "create_agent", "a-call", {})
        await operations.register(c, SessionId(session), work, limit=-1.0)


async def refuse_a_completion(redis: Redis) -> None:
    """Puts an unreadable entry into the stream, and makes it look as if it had been delivered often."""
    entry = await redis.xadd(keys.COMPLETIONS, {"data": "nothing"})
    async with asyncio.timeout(WITHIN):
        while not await redis.xpending_range(keys.COMPLETIONS, GROUP, entry, entry, 1):
            await asyncio.sleep(0.05)  # between two looks of a bounded wait
    await redis.xclaim(keys.COMPLETIONS, GROUP, "elsewhere", 0, [entry], idle=100_000, retrycount=9)


@asynccontextmanager
async def lasting_trouble(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Makes the trouble until the block is left, which also raises what ended it."""
    async with asyncio.TaskGroup() as group:
        job = group.create_task(work)
        yield
        job.cancel()


async def fail_turns(stack: Stack) -> None:
    async with stack.client(new_user()) as http:
        session = await open_session(http)
        while True:
            await converse(http, session, "/fail")


async def fail_requests(http: httpx.AsyncClient) -> None:
    while True:
        await http.post("/api/chat/sessions", json={})


@pytest.mark.timeout(400)
async def test_alerts_fire_in_their_troubles(
    stack: Stack, watch: Prometheus, private_postgres: PostgresNode, private_redis: RedisNode
) -> None:
    async with AsyncExitStack() as open_turns, stack.client(new_user()) as http:
        session = await open_session(http)
        await converse(http, session, "/say Hello")
        await watch.until_firing("CopilotMcpServerDown", within=WITHIN)
        assert await watch.firing() - OF_SLOW_MACHINES == {"CopilotMcpServerDown"}

        async with lasting_trouble(fail_turns(stack)):
            await watch.until_firing("CopilotTurnsFail", "CopilotProviderFails", within=WITHIN)

        for _ in range(SLOTS + 1):  # the last one waits
            busy = await open_turns.enter_async_context(stack.client(new_user()))
            turn = asked(busy, await open_session(busy), "/stream 100000 500")
            last = await open_turns.enter_async_context(turn)
        async with postgres_connection(stack.servers.postgres) as c, Redis.from_url(private_redis.dsn) as redis:
            await c.execute("UPDATE tasks SET active_since = now() - interval '1 hour' WHERE status = 'queued'")
            await redis.xadd(keys.DEAD_TURNS, {BODY: f'{{"task_id": "{last.task_id}"}}', REASON: "rejected"})
            await refuse_a_completion(redis)
            await expire_an_operation(stack, session)
            used = (await redis.info("memory"))["used_memory"]
            await redis.config_set("maxmemory", int(used * 1.2))
            await watch.until_firing("CopilotDeadLetters", "CopilotOperationsExpire", within=WITHIN)
            await watch.until_firing(
                "CopilotRedisFills", "CopilotExecutorsFull", "CopilotDeadCompletions", within=WITHIN
            )
            await redis.config_set("maxmemory", 0)
            busy = await open_turns.enter_async_context(stack.client(new_user()))
            await open_turns.enter_async_context(asked(busy, await open_session(busy), "/stream 100000 500"))
            await c.execute("UPDATE tasks SET active_since = now() - interval '1 hour' WHERE status = 'queued'")
            await watch.until_firing("CopilotTurnsWait", within=WITHIN)
            await c.execute("SELECT pg_advisory_lock($1)", SWEEP_LOCK)
            await watch.until_firing("CopilotNobodySweeps", within=WITHIN)

        (executor,) = stack.executors
        executor.send(signal.SIGKILL)
        await executor.ended()
        await watch.until_firing("CopilotProcessDown", "CopilotNoExecutor", within=WITHIN)
        await stack.start_again(executor)
        await watch.until_firing("CopilotTakeovers", within=WITHIN)

        await private_postgres.kill()
        try:
            async with lasting_trouble(fail_requests(http)):
                await watch.until_firing("CopilotCheckFails", "CopilotRequestsFail", within=WITHIN)
        finally:
            await private_postgres.start()
