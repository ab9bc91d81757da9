"""I19 to I21: each outcome of an operation is applied once and never lost, whichever way it comes and whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from backend.chat.keys import COMPLETIONS, DEAD_COMPLETIONS
from backend.chat.outcomes import Outcome
from backend.chat.queue.completions import GROUP, Completion, publish_completion
from backend.ids import OperationId
from backend.migrating import migrate
from tests.e2e.chat_api import asked, followed, open_session
from tests.e2e.stack import Child, Servers, Stack, new_user, open_stack, ready
from tests.fakes import outside_work
from tests.faults.figures import record
from tests.faults.owners import postgres_connection
from tests.faults.scale import scale
from tests.plain_http import http_client
from tests.servers.generator import GeneratorNode
from tests.servers.ports import free_port
from tests.servers.postgres import PostgresNode
from tests.servers.redis import RedisNode, redis_client
from tests.speed import limit

KEY = "the-key-of-the-completion-tests-01"
OPERATIONS, AT_ONCE, PER_TURN = scale(12, 1000), 12, 6
PUBLISHED, KILLS = scale(200, 10_000), scale(3, 50)
WITHIN = limit(scale(60, 900))
EARLY = scale(6, 200)
pytestmark = pytest.mark.timeout(scale(180, 3000))


def agent_named(name: str) -> dict[str, Any]:
    nodes = [{"id": "a"}, {"id": "b"}]
    return {"agent_json": {"name": name, "nodes": nodes, "links": [{"id": "l", "source_id": "a", "sink_id": "b"}]}}


class Api:
    """An API that is killed and started again on the same port."""

    child: Child

    def __init__(self, stack: Stack, port: int) -> None:
        self._stack = stack
        self.port = port
        self.kills = 0
        self.start_took = 0.0
        """Seconds until the newest process was ready, or had ended."""

    async def start(self, **settings: str) -> None:
        self.child = await self._stack.spawn("api", port=self.port, **settings)
        await ready(self.child)

    async def kill_and_restart(self, **settings: str) -> None:
        self.child.send(signal.SIGKILL)
        await self.child.ended()
        self.kills += 1
        began = time.monotonic()
        self.child = await self._stack.spawn("api", port=self.port, **settings)
        with contextlib.suppress(RuntimeError):  # it may be killed before it is ready
            await ready(self.child)
        self.start_took = time.monotonic() - began


async def delivered(client: httpx.AsyncClient, base: str, operation: str, body: dict[str, Any]) -> int:
    """Reports an outcome as a well-behaved sender does, again and again until the answer is not a 5xx. Returns its
    status."""
    deadline, last = time.monotonic() + limit(60), "nothing"
    while time.monotonic() < deadline:
        try:
            answer = await client.post(f"{base}/api/chat/operations/{operation}/complete", json=body)
        except httpx.TransportError as error:
            last = repr(error)
        else:
            last = answer.text
            if answer.status_code < 500:
                return answer.status_code
        await asyncio.sleep(0.05)
    pytest.fail(f"not accepted in time; the last answer is {last}")


async def test_an_outcome_that_is_reported_several_times_is_applied_once(
    servers: Servers, tmp_path: Path, chance: random.Random
) -> None:
    settings = {
        "CHAT_INTERNAL_API_KEY": KEY,
        "MAX_WAITING_TURNS": "1000",
        "MAX_RUNNING_TURNS": "1000",
        "MAX_OPERATIONS": "1000",
    }
    async with open_stack(servers, tmp_path, executors=0, apis=0, **settings) as stack:
        apis = [Api(stack, free_port()) for _ in range(2)]
        await asyncio.gather(*(api.start(FAILPOINTS="after_completion_commit=3:kill") for api in apis))
        for _ in range(2):
            await ready(await stack.spawn("executor", program=outside_work.PROGRAM))
        bases = [f"http://127.0.0.1:{api.port}" for api in apis]
        user = new_user()
        senders = http_client(headers={"x-api-key": KEY}, timeout=limit(20))
        async with stack.client(user, base=bases[0]) as client, senders, redis_client(servers.redis) as redis:
            begun = [one for _ in range(OPERATIONS // PER_TURN) for one in await begin_several(client)]
            statuses: Counter[int] = Counter()
            at_once = asyncio.Semaphore(AT_ONCE)

            async def report_five_times(number: int, operation: str) -> None:
                """Reports an outcome from five senders at once, some of them with another content."""
                async with at_once:
                    names = [f"agent {number}.{chance.choice('aab')}" for _ in range(5)]
                    for name in names[3:]:
                        completion = Completion(OperationId(operation), Outcome(True, agent_named(name)))
                        await publish_completion(redis, completion)
                    bodies = [{"success": True, "result": agent_named(name)} for name in names[:3]]
                    answers = await asyncio.gather(
                        *(delivered(senders, chance.choice(bases), operation, body) for body in bodies)
                    )
                    statuses.update(answers)

            async with killing(apis, chance, every=1.5):
                await asyncio.gather(*(report_five_times(n, one["operation_id"]) for n, one in enumerate(begun)))
            await until_all_completed(servers, [one["task_id"] for one in begun])
            agents = await every_agent(client, bases[0])
        assert len(agents) == len(begun)
        assert {agent["version"] for agent in agents} == {1}
        assert len({agent["name"].split(".")[0] for agent in agents}) == len(begun)
        assert set(statuses) <= {200, 409}, statuses
        async with postgres_connection(servers.postgres) as c:
            for one in begun:
                notes = await c.fetchval(
                    "SELECT count(*) FROM messages WHERE task_id = $1 AND role = 'user'", one["task_id"]
                )
                assert notes == 1, "one continuation"
        kills = sum(api.kills for api in apis)
        assert kills
        record(
            "I19", f"{len(begun)} operations x 5 outcomes, {kills} kills of API: each applied once; {dict(statuses)}"
        )


async def begin_several(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Runs a turn that starts PER_TURN operations. Returns the outputs of its calls."""
    session = await open_session(client)
    call = f"/tool outside_work {json.dumps({'use': 'save_agent'})}"
    async with asked(client, session, "\n".join([call] * PER_TURN)) as stream:
        await stream.rest()
    outputs = [e.chunk["output"] for e in stream.events if e.chunk["type"] == "tool-output-available"]
    assert [one["type"] for one in outputs] == ["operation_started"] * PER_TURN
    return outputs


@asynccontextmanager
async def killing(apis: list[Api], chance: random.Random, *, every: float) -> AsyncIterator[None]:
    """Kills each API again and again while the block runs, either between a commit and its answer or at any time.

    Each API has a pace of its own: it serves about as long as its start took, or `every` seconds if that is longer. So
    senders find one, however slow a start is.
    """

    async def kill(api: Api) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await api.child.ended(chance.uniform(0.5, 1.5) * max(every, api.start_took))
            await api.kill_and_restart(FAILPOINTS=f"after_completion_commit={chance.randint(1, 20)}:kill")

    jobs = [asyncio.create_task(kill(api)) for api in apis]
    try:
        yield
    finally:
        for job in jobs:
            job.cancel()
        ends = await asyncio.gather(*jobs, return_exceptions=True)
        for api in apis:
            if not api.child.running:
                api.kills += 1
                await api.start()
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def until_all_completed(servers: Servers, tasks: list[str]) -> None:
    async with postgres_connection(servers.postgres) as c:
        try:
            async with asyncio.timeout(WITHIN):
                while await c.fetchval(
                    "SELECT count(*) FROM tasks WHERE id = ANY($1) AND status <> 'completed'", tasks
                ):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            left = await c.fetch("SELECT * FROM tasks WHERE id = ANY($1) AND status <> 'completed'", tasks)
            pytest.fail(f"not completed: {[dict(row) for row in left]}")


async def every_agent(client: httpx.AsyncClient, base: str) -> list[dict[str, Any]]:
    agents: list[dict[str, Any]] = []
    while True:
        page = (await client.get(f"{base}/api/library/agents", params={"limit": 100, "offset": len(agents)})).json()
        agents += page["agents"]
        if not page["agents"]:
            return agents


async def test_no_outcome_in_the_stream_is_lost_when_its_consumers_die(
    private_postgres: PostgresNode, private_redis: RedisNode, tmp_path: Path, chance: random.Random
) -> None:
    await migrate(private_postgres.dsn)
    ids = await insert_operations(private_postgres.dsn, PUBLISHED)
    servers = Servers(private_postgres.dsn, private_redis.dsn)
    async with (
        open_stack(servers, tmp_path, executors=0, apis=0, CHAT_INTERNAL_API_KEY=KEY) as stack,
        redis_client(private_redis.dsn) as redis,
    ):
        apis = [Api(stack, free_port()) for _ in range(2)]
        await asyncio.gather(*(api.start() for api in apis))
        pause = scale(1.0, 3.5)

        async def publish() -> None:
            for n, id in enumerate(ids):
                await publish_completion(redis, Completion(OperationId(id), Outcome(True, {"n": n})))
                if n % 20 == 19:
                    await asyncio.sleep(20 * KILLS * pause / PUBLISHED)

        publishing = asyncio.create_task(publish())
        for n in range(KILLS):
            await asyncio.sleep(chance.uniform(0.6, 1.4) * pause)
            await apis[n % 2].kill_and_restart()
            if n == KILLS // 2:
                private_postgres.freeze()
                await asyncio.sleep(scale(2, 60))
                private_postgres.thaw()
        await publishing
        async with asyncio.timeout(limit(scale(90, 300))):
            while await unfinished(redis):
                await asyncio.sleep(0.2)
        c = await asyncpg.connect(private_postgres.dsn)
        try:
            applied = await c.fetchval("SELECT count(*) FROM tasks WHERE outcome->>'success' = 'true'")
        finally:
            await c.close()
        assert applied == PUBLISHED
        assert not await redis.exists(DEAD_COMPLETIONS)
        logs = "".join(child.log.read_text() for child in stack.children)
        assert "trimmed while they were pending" not in logs
        record("I20", f"{PUBLISHED} outcomes by stream, {KILLS} kills of a consumer: all applied, nothing pending")


async def unfinished(redis: Redis) -> bool:
    for group in await redis.xinfo_groups(COMPLETIONS):
        if group["name"] == GROUP.encode():
            return bool(group["pending"] or group["lag"])
    return True


async def insert_operations(dsn: str, count: int) -> list[str]:
    """Inserts operations that wait for their outcomes, each in its own session. Returns their ids."""
    c = await asyncpg.connect(dsn)
    try:
        await c.execute(
            """
            INSERT INTO sessions (id) SELECT 'session-of-completions-' || n FROM generate_series(1, $1::int) AS n;
            """.replace("$1::int", str(count))
        )
        rows = await c.fetch(
            """
            INSERT INTO tasks (id, session_id, quota_key, kind, status, attempt, request, tool_name, operation_id,
              tool_call_id, checkpoint, deadline_at)
            SELECT gen_random_uuid()::text, s.id, 'x', 'operation', 'running', 1,
              '{"turn": "none", "input": {}, "use": "tool_output"}', 'a_tool', gen_random_uuid()::text, 'call', '0-0',
              now() + interval '1 day'
            FROM sessions s RETURNING operation_id
            """
        )
        return [row["operation_id"] for row in rows]
    finally:
        await c.close()


async def test_an_outcome_that_arrives_before_the_generators_answer_is_not_lost(
    servers: Servers, generator: GeneratorNode, tmp_path: Path
) -> None:
    """The generator reports the outcome before its answer, that is before the turn has written anything."""
    port = free_port()
    settings = {
        **generator.settings,
        "PLATFORM_BASE_URL": f"http://127.0.0.1:{port}",
        "MAX_RUNNING_TURNS": "1000",
        "MAX_OPEN_STREAMS": "1000",
    }
    async with open_stack(servers, tmp_path, executors=2, apis=0, **settings) as stack:
        await stack.start_api(port=port)
        at_once = asyncio.Semaphore(8)

        async def early(client: httpx.AsyncClient, n: int) -> None:
            async with at_once:
                session = await open_session(client)
                goal = f"Every morning at 8 read mail number {n} [generator: 202-webhook delay=0]"
                async with asked(client, session, f"/tool create_agent {json.dumps({'description': goal})}") as stream:
                    await stream.rest()
                (started,) = [e.chunk["output"] for e in stream.events if e.chunk["type"] == "tool-output-available"]
                async with followed(client, started["task_id"]) as stream:
                    await stream.rest()
                rows = (await client.get(f"/api/chat/sessions/{session}")).json()["messages"]
                (result,) = [row["parts"][0]["output"] for row in rows if row["role"] == "tool"]
                assert result["type"] == "agent_saved", result

        async with stack.client(new_user()) as client:
            await asyncio.gather(*(early(client, n) for n in range(EARLY)))
        record("I21", f"{EARLY} outcomes that came at once: all applied")
