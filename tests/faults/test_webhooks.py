"""Events for webhooks survive the death of every process: each is sent at least once, always with the same id."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import defaultdict
from pathlib import Path
from random import Random

import asyncpg
import pytest

from tests.e2e.chat_api import asked, open_session
from tests.e2e.stack import Child, Servers, new_user, open_stack
from tests.faults.figures import record
from tests.faults.owners import postgres_connection
from tests.faults.scale import scale
from tests.servers.receiver import receiver
from tests.speed import limit

TURNS, KILLS = 4, scale(1, 50)
HERE = "127.0.0.0/8"
pytestmark = pytest.mark.timeout(scale(180, 1800))
_HURRY = "UPDATE webhook_deliveries SET due_at = now() WHERE due_at IS NOT NULL"
_UNENDED = "SELECT count(*) FROM tasks WHERE finished_at IS NULL"
_WAITING = "SELECT count(*) FROM webhook_deliveries WHERE due_at IS NOT NULL"


async def until_none_waits(c: asyncpg.Connection) -> None:
    """Waits until every event was delivered, without the waits between attempts and for leases of the dead."""
    async with asyncio.timeout(limit(scale(60, 300))):
        while await c.fetchval(_WAITING):
            await c.execute(_HURRY)
            await asyncio.sleep(1)  # between two looks of a bounded wait


async def died_at(child: Child, failpoint: str) -> None:
    await child.ended()
    assert f" at={failpoint}\n" in child.log.read_text()


async def test_an_event_survives_a_kill_after_the_commit_and_one_after_the_attempt(
    postgres_dsn: str, redis_dsn: str, tmp_path: Path
) -> None:
    servers = Servers(postgres_dsn, redis_dsn)
    async with (
        receiver() as inbox,
        open_stack(servers, tmp_path, executors=0, WEBHOOK_PRIVATE_NETWORKS=HERE) as stack,
    ):
        first = await stack.start_executor(FAILPOINTS="after_final_commit=1:kill")
        async with stack.client(new_user()) as http:
            await http.post("/api/chat/webhooks", json={"url": inbox.url()})
            async with asked(http, await open_session(http), "/stream 3"):
                await died_at(first, "after_final_commit")
        assert inbox.waiting == 0
        second = await stack.start_executor(FAILPOINTS="after_webhook_attempt=1:kill")
        once = await inbox.next()
        await died_at(second, "after_webhook_attempt")
        await stack.start_executor()
        async with postgres_connection(postgres_dsn) as c:
            assert await c.fetchval(_WAITING) == 1
            await c.execute(_HURRY)
            twice = await inbox.next()
            await until_none_waits(c)
    assert once.headers["webhook-id"] == twice.headers["webhook-id"]
    assert once.body == twice.body
    assert json.loads(once.body)["data"]["status"] == "completed"


async def test_no_event_is_lost_while_executors_are_killed(
    postgres_dsn: str, redis_dsn: str, tmp_path: Path, chance: Random
) -> None:
    servers = Servers(postgres_dsn, redis_dsn)
    async with (
        receiver() as inbox,
        open_stack(servers, tmp_path, executors=2, WEBHOOK_PRIVATE_NETWORKS=HERE, MAX_CRASHES="100") as stack,
    ):
        tasks: list[str] = []
        async with stack.client(new_user()) as http, postgres_connection(postgres_dsn) as c:
            await http.post("/api/chat/webhooks", json={"url": inbox.url()})
            for _ in range(KILLS):
                session = await open_session(http)
                for _ in range(TURNS):
                    async with asked(http, session, "/stream 3 20") as stream:
                        tasks.append(stream.task_id)
                await asyncio.sleep(chance.uniform(0, 2))  # the moment of a kill, not a wait for anything
                killed = chance.choice(stack.executors)
                killed.send(signal.SIGKILL)
                await killed.ended()
                await stack.start_executor()
                await c.execute(_HURRY)
            async with asyncio.timeout(limit(scale(60, 600))):
                while await c.fetchval(_UNENDED):
                    await asyncio.sleep(0.1)  # between two looks of a bounded wait
            await until_none_waits(c)
        ids = defaultdict(set)
        received = inbox.waiting
        for _ in range(received):
            request = await inbox.next()
            ids[json.loads(request.body)["data"]["task_id"]].add(request.headers["webhook-id"])
    assert set(ids) == set(tasks)
    assert {len(of_one) for of_one in ids.values()} == {1}
    record("webhooks", f"{len(tasks)} events, {KILLS} kills: {received - len(tasks)} repeated, 0 lost")
