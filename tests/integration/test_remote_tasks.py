"""The side job that asks tool servers for tasks: which servers it asks, and when it gives up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from backend.chat.resources import Resources
from backend.postgres import Connection, Database
from executor.side_jobs.remote_tasks import AT_ONCE, AT_ONCE_OF_ONE, RemoteTasks
from executor.turns.context import ExecutorContext
from tests.integration.test_stores_remote_tasks import ME, an_operation, none_stored

__all__ = ["none_stored"]
SERVERS = [f"server-{number}" for number in range(6)]


def side_job(database: Database, *servers: str, **tasks: Any) -> RemoteTasks:
    connections = [
        SimpleNamespace(server=SimpleNamespace(name=name), can_tell_of_tasks=True, tasks=SimpleNamespace(**tasks))
        for name in servers
    ]
    resources = cast(Resources, SimpleNamespace(database=database, me=ME))
    return RemoteTasks(resources, cast(ExecutorContext, SimpleNamespace(tool_servers=connections)))


@pytest.mark.parametrize("server", SERVERS)
async def test_each_of_many_servers_is_asked(server: str, database: Database, c: Connection) -> None:
    operation = await an_operation(c, server=server)
    assert [one.task_id for one in await side_job(database, *SERVERS)._claim()] == [operation.task_id]


async def test_no_more_tasks_are_asked_for_at_once_than_there_are_places(database: Database, c: Connection) -> None:
    for server in SERVERS:
        for _ in range(AT_ONCE_OF_ONE + 1):
            await an_operation(c, server=server)
    job = side_job(database, *SERVERS)
    claimed = await job._claim()
    assert len(claimed) == AT_ONCE
    job._asked.update({one.task_id: one.remote.server for one in claimed})
    assert await job._claim() == []
