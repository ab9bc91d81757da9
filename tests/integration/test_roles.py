"""The roles of docs/deployment.md are enough for API and executor, and may do nothing else."""

from __future__ import annotations

import re
import shlex
from urllib.parse import urlsplit

import asyncpg
import pytest

from backend.chat.queue.rabbitmq import open_rabbit_turns
from backend.rabbitmq import Topology
from tests import ROOT
from tests.fakes.outside_work import OutsideToolbox
from tests.integration.running_api import new_user, running_api
from tests.integration.test_operations import begin, complete
from tests.integration.turn_queues import new_turn, soon, until_healthy
from tests.servers.rabbitmq import RabbitNode
from tests.speed import limit

ROLES = (ROOT / "docs" / "deployment.md").read_text().partition("\n## Roles\n")[2]


def block_of(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", ROLES, re.DOTALL)
    assert found is not None
    return found[1]


async def test_turns_operations_and_deletions_need_no_more_than_the_role_of_postgres(
    postgres_dsn: str, redis_dsn: str
) -> None:
    parts = urlsplit(postgres_dsn)
    database, role = parts.path.lstrip("/"), f"app_{parts.path[-12:]}"
    owner = await asyncpg.connect(postgres_dsn, timeout=limit(20))
    migrating = await owner.fetchval("SELECT current_user")
    names = {
        "copilot_app": role,
        "DATABASE copilot ": f'DATABASE "{database}" ',
        "ROLE copilot ": f'ROLE "{migrating}" ',
    }
    script = block_of("sql")
    for name, ours in names.items():
        assert name in script
        script = script.replace(name, ours)
    await owner.execute(script)
    try:
        netloc = f"{role}:change-me@{parts.netloc.rpartition('@')[2]}"
        dsn = parts._replace(netloc=netloc).geturl()
        async with running_api(dsn, redis_dsn, toolbox=OutsideToolbox, retention_days=1) as api:
            mine = api.as_user(new_user())
            assert (await api.say(await api.new_session(mine), "/stream 2", mine)).text == "0 1 "
            session, started = await begin(api, mine)
            assert (await complete(api, started["operation_id"], result="done")).status_code == 200
            assert (await api.ended(started["task_id"], mine)).text.endswith("The work is done.")
            assert (await api.http.delete(f"/api/chat/sessions/{session}", headers=mine)).status_code == 204
            assert (await api.http.delete("/api/chat/user", headers=mine)).status_code == 204
            async with api.resources.database.connection() as c:
                for forbidden in ("CREATE TABLE x ()", "DELETE FROM _prisma_migrations", "TRUNCATE sessions"):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await c.execute(forbidden)
    finally:
        await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await owner.close(timeout=limit(20))


async def test_turns_and_cancels_need_no_more_than_the_permissions_of_rabbitmq(private_rabbitmq: RabbitNode) -> None:
    _, *command = shlex.split(block_of("sh"))
    await private_rabbitmq.ctl("add_user", "copilot", "change-me")
    await private_rabbitmq.ctl(*command)
    dsn = private_rabbitmq.dsn.replace("guest:guest@", "copilot:change-me@")
    async with (
        open_rabbit_turns(dsn, Topology()) as queue,
        queue.consume(1) as turns,
        queue.dead_turns(),
        queue.cancel_requests() as cancels,
    ):
        await until_healthy(queue)
        turn = new_turn()
        await soon(queue.publish(turn))
        delivery = await soon(anext(turns))
        assert await soon(delivery.hand_back())
        await soon((await soon(anext(turns))).ack())
        await queue.publish_cancel(turn.task_id)
        assert await soon(anext(cancels)) == turn.task_id
