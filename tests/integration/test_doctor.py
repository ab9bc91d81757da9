"""`python -m backend doctor` over real stores, healthy and not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest
from redis.asyncio import Redis

from backend.chat import keys
from backend.chat.store import executors
from backend.ids import new_executor_id
from backend.postgres import Database
from backend.rabbitmq import Topology
from tests.e2e.stack import Servers
from tests.integration.operating import Said, run
from tests.integration.rows import a_claimed_task, a_session, a_task
from tests.servers.ports import free_port
from tests.servers.postgres import copied_database
from tests.servers.redis import RedisNode

SECRET = "a-password-that-nobody-may-see"


@pytest.fixture
async def own_database(migrated_dsn: str) -> AsyncIterator[str]:
    async with copied_database(migrated_dsn) as dsn:
        yield dsn


def found(said: Said, state: str) -> dict[str, str]:
    """Returns the messages of the findings in this state, by check; several are joined."""
    messages: dict[str, str] = {}
    for finding in said.document["findings"]:
        if finding["state"] == state:
            before = messages.get(finding["check"])
            messages[finding["check"]] = finding["message"] if before is None else f"{before}; {finding['message']}"
    return messages


async def test_a_healthy_system_has_no_error(own_database: str, private_redis: RedisNode, short_path: Path) -> None:
    async with Database.open(own_database, size=2) as database, database.connection() as c:
        await executors.beat(c, new_executor_id())
        said = await run(short_path, Servers(own_database, private_redis.dsn), "doctor", "--json", CHAT_MODEL="m")
    assert said.code == 0, said.text
    assert said.document["healthy"] is True
    assert not found(said, "error")
    assert {"postgres", "migrations", "indexes", "executors", "tasks", "redis", "clock", "dead"} <= found(
        said, "ok"
    ).keys()
    assert all(finding["advice"] for finding in said.document["findings"] if finding["state"] != "ok")


async def test_troubles_are_named_with_advice(own_database: str, private_redis: RedisNode, short_path: Path) -> None:
    servers = Servers(own_database, private_redis.dsn)
    async with Database.open(own_database, size=2) as database, database.connection() as c:
        lost = await a_task(c, await a_session(c))
        await c.execute("UPDATE tasks SET active_since = now() - interval '1 hour' WHERE id = $1", lost.id)
        orphan = await a_claimed_task(c)
        await c.execute("UPDATE tasks SET started_at = now() - interval '1 hour' WHERE id = $1", orphan.id)
        await c.execute("DROP INDEX tasks_owner_idx")
        await c.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tasks_deadline_at_idx'::regclass")
        async with Redis.from_url(private_redis.dsn) as redis:
            await redis.config_set("maxmemory-policy", "allkeys-lru")
            await redis.xadd(keys.DEAD_COMPLETIONS, {"data": "x", "reason": "not JSON", "id": "1-1"})
            said = await run(short_path, servers, "doctor", "--json", FAILPOINTS="before_renew=1:kill")
            plain = await run(short_path, servers, "doctor")
    assert said.code == plain.code == 1
    errors, warnings = found(said, "error"), found(said, "warning")
    assert "none is alive" in errors["executors"]
    assert lost.id in errors["tasks"]
    assert orphan.id in errors["tasks"]
    assert "tasks_owner_idx is missing" in errors["indexes"]
    assert "tasks_deadline_at_idx is invalid" in errors["indexes"]
    assert "allkeys-lru" in errors["redis"]
    assert "chat:completions:dead" in warnings["dead"]
    assert "FAILPOINTS" in warnings["settings"]
    assert "CREATE INDEX" in plain.text
    assert "→" in plain.text


async def test_stores_that_are_away_are_findings_without_their_passwords(short_path: Path) -> None:
    place = f"nobody:{SECRET}@127.0.0.1:{free_port()}"
    servers = Servers(f"postgresql://{place}/x", f"redis://{place}/0", f"amqp://{place}/")
    said = await run(short_path, servers, "doctor", "--json")
    assert said.code == 1
    assert {"postgres", "redis", "rabbitmq"} <= found(said, "error").keys()
    assert SECRET not in said.text + said.errors


async def test_a_machine_on_which_nothing_runs_is_told_once(short_path: Path) -> None:
    said = await run(short_path, None, "doctor", "--json")
    assert said.code == 1
    errors = found(said, "error")
    assert list(errors) == ["stack"]
    assert [one["advice"] for one in said.document["findings"] if one["check"] == "stack"] == [
        "start `make run`, or set DATABASE_URL and REDIS_URL: docs/deployment.md"
    ]


async def test_a_database_without_tables_is_told_how_to_get_them(
    empty_postgres_dsn: str, private_redis: RedisNode, short_path: Path
) -> None:
    said = await run(short_path, Servers(empty_postgres_dsn, private_redis.dsn), "doctor", "--json")
    assert said.code == 1
    assert "python -m backend migrate" in found(said, "error")["migrations"]


async def test_queues_of_rabbitmq_are_compared(
    own_database: str, private_redis: RedisNode, rabbitmq_dsn: str, short_path: Path
) -> None:
    servers, topology = Servers(own_database, private_redis.dsn, rabbitmq_dsn), Topology()
    connection = await aio_pika.connect(rabbitmq_dsn)
    async with connection, connection.channel() as channel:
        for name in (topology.queue, topology.dead_queue):
            await channel.queue_delete(name)
        missing = await run(short_path, servers, "doctor", "--json")
        assert "does not exist" in found(missing, "warning")["queues"]
        await channel.declare_queue(topology.queue, durable=True)
        other = await run(short_path, servers, "doctor", "--json")
        assert "has other arguments" in found(other, "warning")["queues"]
        assert "nobody takes from" in found(other, "error")["queues"]
        await channel.queue_delete(topology.queue)
