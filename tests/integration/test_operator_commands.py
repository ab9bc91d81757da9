"""`python -m backend tasks` and `dead-letters` over real stores, as real processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from redis.asyncio import Redis

from backend.chat import keys
from backend.chat.flows.start import start_turn
from backend.chat.models import Caller, Task, TurnRequest
from backend.chat.outcomes import Outcome
from backend.chat.queue.completions import Completion
from backend.chat.queue.redis_consumer import BODY, REASON
from backend.chat.queue.turn_queue import task_named_by
from backend.chat.store import executors, tasks
from backend.config import load_settings
from backend.ids import OperationId, new_executor_id, new_session_id
from backend.postgres import Connection, Database
from backend.rabbitmq import Topology
from backend.resources import open_resources
from tests.e2e.stack import Servers, open_stack
from tests.integration.operating import run
from tests.integration.rows import a_session, a_task
from tests.servers.postgres import copied_database
from tests.servers.redis import RedisNode
from tests.speed import limit


@pytest.fixture
async def servers(migrated_dsn: str, private_redis: RedisNode) -> AsyncIterator[Servers]:
    async with copied_database(migrated_dsn) as dsn:
        yield Servers(dsn, private_redis.dsn)


@asynccontextmanager
async def rows(servers: Servers) -> AsyncIterator[Connection]:
    async with Database.open(servers.postgres, size=2) as database, database.connection() as c:
        yield c


async def a_lost_turn(servers: Servers, text: str) -> Task:
    """Accepts a message whose turn counts as published, although the queue does not have it."""
    settings = load_settings(files=(), database_url=servers.postgres, redis_url=servers.redis, queue="redis")
    async with open_resources(settings) as resources:
        started = await start_turn(
            resources, Caller(None, "lost"), new_session_id(), TurnRequest(text), message_key=None, create_session=True
        )
        async with resources.database.connection() as c:
            later = (
                "UPDATE tasks SET published_at = now() + interval '1 hour' WHERE id = $1"  # so no sweeper looks at it
            )
            await c.execute(later, started.task.id)
    return started.task


async def test_a_turn_whose_message_was_lost_is_seen_and_published_again(servers: Servers, tmp_path: Path) -> None:
    task = await a_lost_turn(servers, "/say Hello")
    listed = await run(tmp_path, servers, "tasks", "list", "--json")
    assert listed.code == 0, listed.errors
    (found,) = listed.document
    assert (found["id"], found["state"]) == (task.id, "waits for an executor")
    header, row = (await run(tmp_path, servers, "tasks", "list")).text.splitlines()
    assert header.split() == ["TASK", "KIND", "STATE", "CREATED", "ERROR"]
    assert (row.index(task.id), row.index("waits for")) == (header.index("TASK"), header.index("STATE"))
    shown = await run(tmp_path, servers, "tasks", "show", task.id, "--json")
    assert shown.document["published_at"] is not None
    assert "Hello" not in shown.text
    async with open_stack(servers, tmp_path):
        again = await run(tmp_path, servers, "tasks", "requeue", task.id)
        assert again.code == 0, again.errors
        async with rows(servers) as c, asyncio.timeout(limit(30)):
            while (await tasks.get_task(c, task.id)).status != "completed":
                await asyncio.sleep(0.05)
    completed = await run(tmp_path, servers, "tasks", "list", "--status", "completed", "--json")
    assert [view["id"] for view in completed.document] == [task.id]
    ended = await run(tmp_path, servers, "tasks", "requeue", task.id)
    assert (ended.code, ended.errors.strip().endswith("its user can ask again")) == (1, True)


async def test_a_waiting_turn_is_cancelled_only_with_a_yes(servers: Servers, tmp_path: Path) -> None:
    async with rows(servers) as c:
        task = await a_task(c, await a_session(c))
        refused = await run(tmp_path, servers, "tasks", "cancel", task.id)
        assert (refused.code, "--yes" in refused.errors) == (1, True)
        assert (await tasks.get_task(c, task.id)).status == "queued"
        done = await run(tmp_path, servers, "tasks", "cancel", task.id, "--yes")
        assert done.code == 0, done.errors
        assert (await tasks.get_task(c, task.id)).status == "cancelled"
        again = await run(tmp_path, servers, "tasks", "cancel", task.id, "--yes")
    assert (again.code, "has ended" in again.errors) == (1, True)


async def test_a_task_is_taken_only_from_a_dead_owner(servers: Servers, tmp_path: Path) -> None:
    living, dead = new_executor_id(), new_executor_id()
    async with rows(servers) as c:
        await executors.beat(c, living)
        held = await a_task(c, await a_session(c))
        await tasks.claim_new_task(c, held.id, living)
        behind = await a_task(c, held.session_id, active=False)
        orphan = await a_task(c, await a_session(c))
        await tasks.claim_new_task(c, orphan.id, dead)
        for task, word in ((held, "alive"), (behind, "another turn")):
            declined = await run(tmp_path, servers, "tasks", "requeue", task.id)
            assert (declined.code, word in declined.errors) == (1, True), declined.errors
        taken = await run(tmp_path, servers, "tasks", "requeue", orphan.id)
        assert taken.code == 0, taken.errors
        row = await tasks.get_task(c, orphan.id)
        assert (row.owner, row.crashes) == (None, 1)
        assert (await tasks.get_task(c, held.id)).owner == living
    async with Redis.from_url(servers.redis) as redis:
        assert [task_named_by(fields[BODY]) for _, fields in await redis.xrange(keys.TURNS)] == [orphan.id]


@pytest.mark.parametrize("id", ["no-such-task", "'; DROP TABLE tasks", "x" * 65])
async def test_unknown_and_malformed_ids_are_one_line(servers: Servers, tmp_path: Path, id: str) -> None:
    for command in ("show", "requeue"):
        said = await run(tmp_path, servers, "tasks", command, id)
        assert said.code == 1
        assert said.errors.startswith("copilot: ")
        assert said.errors.count("\n") == 1


async def test_dead_letters_of_redis_are_sent_again_or_dropped(servers: Servers, tmp_path: Path) -> None:
    outcome = Completion(OperationId("op-1"), Outcome(True, {"secret": "of a user"}, None)).encode()
    async with rows(servers) as c, Redis.from_url(servers.redis) as redis:
        task = await a_task(c, await a_session(c))
        turn = json.dumps({"task_id": task.id, "session_id": task.session_id, "schema": 1})
        letters = [
            ("turns", await redis.xadd(keys.DEAD_TURNS, {BODY: turn, REASON: "delivery_limit"})),
            ("turns", await redis.xadd(keys.DEAD_TURNS, {BODY: "nothing", REASON: "unreadable"})),
            ("completions", await redis.xadd(keys.DEAD_COMPLETIONS, {"data": outcome, "reason": "unknown operation"})),
            ("completions", await redis.xadd(keys.DEAD_COMPLETIONS, {"data": "x", "reason": "not JSON"})),
        ]
        listed = await run(tmp_path, servers, "dead-letters", "list", "--json")
        assert [(letter["kind"], letter["id"]) for letter in listed.document] == [(k, i.decode()) for k, i in letters]
        assert [letter.get("task_id") or letter.get("operation_id") for letter in listed.document] == [
            task.id,
            None,
            "op-1",
            None,
        ]
        assert "of a user" not in listed.text
        header, *rows_listed = (await run(tmp_path, servers, "dead-letters", "list")).text.splitlines()
        assert header.split() == ["KIND", "LETTER", "REASON", "NAMES"]
        assert [row[header.index("LETTER") :].split()[0] for row in rows_listed] == [i.decode() for _, i in letters]
        shown = await run(tmp_path, servers, "dead-letters", "show", "completions", letters[2][1].decode(), "--body")
        assert "of a user" in shown.document["body"]
        codes = []
        for kind, id in letters:
            codes.append((await run(tmp_path, servers, "dead-letters", "requeue", kind, id.decode())).code)
        assert codes == [0, 1, 0, 1]  # those that cannot be read stay
        assert [task_named_by(fields[BODY]) for _, fields in await redis.xrange(keys.TURNS)] == [task.id]
        assert [fields[b"data"] for _, fields in await redis.xrange(keys.COMPLETIONS)] == [outcome]
        for kind, id in (letters[1], letters[3]):
            dropped = await run(tmp_path, servers, "dead-letters", "drop", kind, id.decode(), "--yes")
            assert dropped.code == 0, dropped.errors
        assert await redis.xlen(keys.DEAD_TURNS) == await redis.xlen(keys.DEAD_COMPLETIONS) == 0
    assert (await run(tmp_path, servers, "dead-letters", "list")).text.strip() == "none"


async def test_dead_letters_of_rabbitmq_are_sent_again_or_dropped(
    servers: Servers, rabbitmq_dsn: str, tmp_path: Path
) -> None:
    over_rabbit, topology = Servers(servers.postgres, servers.redis, rabbitmq_dsn), Topology()
    assert (await run(tmp_path, over_rabbit, "dead-letters", "list")).code == 0  # declares the queues
    async with rows(servers) as c:
        task = await a_task(c, await a_session(c))
    connection = await aio_pika.connect(rabbitmq_dsn)
    async with connection, connection.channel() as channel:
        dead = await channel.get_exchange(topology.dead, ensure=False)
        turns = await channel.get_queue(topology.queue, ensure=False)
        await turns.purge()
        turn = json.dumps({"task_id": task.id, "session_id": task.session_id, "schema": 1}).encode()
        for id, body in (("one", turn), ("two", b"nothing")):
            await dead.publish(aio_pika.Message(body, message_id=id), topology.dead_key)
        listed = await run(tmp_path, over_rabbit, "dead-letters", "list", "--json")
        assert [(letter["id"], letter["task_id"]) for letter in listed.document] == [("one", task.id), ("two", None)]
        again = await run(tmp_path, over_rabbit, "dead-letters", "requeue", "turns", "one")
        assert again.code == 0, again.errors
        assert (await run(tmp_path, over_rabbit, "dead-letters", "requeue", "turns", "two")).code == 1
        dropped = await run(tmp_path, over_rabbit, "dead-letters", "drop", "turns", "two", "--yes")
        assert dropped.code == 0, dropped.errors
        delivered = await turns.get(timeout=limit(10))
        assert task_named_by(delivered.body) == task.id
        await delivered.ack()
    assert (await run(tmp_path, over_rabbit, "dead-letters", "list", "--json")).document == []


async def test_without_servers_a_command_says_that_nothing_runs(tmp_path: Path) -> None:
    for command in (("tasks", "list"), ("dead-letters", "list")):
        said = await run(tmp_path, None, *command)
        assert said.code == 1
        assert said.errors.startswith(
            "copilot: DATABASE_URL: no server is set, and `make run` does not run with DATA_DIR="
        )
