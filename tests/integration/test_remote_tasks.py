"""The side job that asks tool servers for tasks: which servers it asks, and when it gives up."""

from __future__ import annotations

from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backend.chat.outcomes import ToolWork
from backend.chat.questions import Question, QuestionKind
from backend.chat.resources import Resources
from backend.chat.store import tasks
from backend.postgres import Connection, Database
from executor.operations import Waits
from executor.side_jobs.remote_tasks import AT_ONCE, AT_ONCE_OF_ONE, RemoteTasks
from executor.turns.context import ExecutorContext
from tests.integration.running_api import running_api
from tests.integration.test_stores_remote_tasks import ME, an_operation, none_stored

__all__ = ["none_stored"]
SERVERS = [f"server-{number}" for number in range(6)]


def side_job(database: Database, *servers: str, **tasks: Any) -> RemoteTasks:
    connections = [
        SimpleNamespace(server=SimpleNamespace(name=name), can_tell_of_tasks=True, tasks=SimpleNamespace(**tasks))
        for name in servers
    ]
    resources = cast(Resources, SimpleNamespace(database=database, me=ME))
    waits = Waits(1)
    waits.over = True
    context = SimpleNamespace(tool_servers=connections, waits=waits, start_work=no_work, can_ask=lambda _: True)
    return RemoteTasks(resources, cast(ExecutorContext, context))


def no_work(work: Coroutine[Any, Any, None]) -> bool:
    work.close()
    return False


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


async def test_a_stop_of_the_executor_answers_no_question_of_a_task(
    postgres_dsn: str, redis_dsn: str, c: Connection
) -> None:
    """The next executor asks again. A task that got `cancel` at each deploy would not wait for its user."""
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        operation = await an_operation(c)
        ended = "UPDATE tasks SET status = 'completed', active_session_id = NULL WHERE id = $1"
        await c.execute(ended, operation.work.turn)
        job = side_job(api.resources.database, "one")
        job._resources = api.resources
        context = job._context_of(operation, await tasks.get_task(c, operation.task_id))
        asks = Question(QuestionKind.ELICITATION, "Where?")
        work = ToolWork(operation.work.turn, "one_work", operation.work.tool_call_id, {}, asks=asks)
        answer = await context.operations.ask_now(work, 1.0, lambda _: None)
        assert answer["error"] == "not_answered"
