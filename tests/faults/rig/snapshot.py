"""Reads what the system holds when every task has ended: conversations and streams over HTTP, tasks from Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from tests.faults.rig.clients import Client, open_client
from tests.faults.rig.history import History
from tests.faults.rig.readings import Reading, Seen
from tests.faults.rig.supervisor import Rig
from tests.speed import limit

_TASKS = """
SELECT id, session_id AS session, message_key AS message_id, status,
  extract(epoch FROM started_at)::float AS started, extract(epoch FROM finished_at)::float AS finished
FROM tasks"""
_UNENDED = "SELECT count(*) FROM tasks WHERE status IN ('queued', 'running')"
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Row:
    """A message of a conversation."""

    session: str
    sequence: int
    role: str
    task: str
    text: str
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A row of `tasks`. `started` (of the first attempt) and `finished` are seconds by the clock of Postgres."""

    id: str
    session: str
    message_id: str | None
    status: str
    started: float | None
    finished: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The messages and tasks of a run. `late` holds, by task, what a reader sees who opens the stream afterwards."""

    rows: tuple[Row, ...]
    tasks: tuple[TaskRow, ...]
    late: Mapping[str, Seen]


async def quiet(rig: Rig) -> None:
    """Returns when every task has ended. The caller bounds the wait."""
    connection = await asyncpg.connect(rig.stores.postgres.dsn, timeout=limit(20), command_timeout=limit(30))
    try:
        while await connection.fetchval(_UNENDED):
            await asyncio.sleep(0.1)  # between two checks of a bounded wait
    finally:
        await connection.close(timeout=limit(20))


async def task_rows(rig: Rig) -> tuple[TaskRow, ...]:
    connection = await asyncpg.connect(rig.stores.postgres.dsn, timeout=limit(20), command_timeout=limit(60))
    try:
        return tuple(TaskRow(**row) for row in await connection.fetch(_TASKS))
    finally:
        await connection.close(timeout=limit(20))


async def take_snapshot(rig: Rig) -> Snapshot:
    """Returns a snapshot of all sessions in which the rig's history has posts. Every task must have ended. The caller
    bounds the wait."""
    owners = {event.about["session"]: event.process for event in rig.history.of("post") if "session" in event.about}
    tasks = await task_rows(rig)
    rows: list[Row] = []
    late: dict[str, Seen] = {}
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def read_sessions_of(user: str) -> None:
        async with at_once, open_client(user, rig.bases, History()) as client:
            for session in (session for session, owner in owners.items() if owner == user):
                rows.extend(await _rows_of(client, session))
                for task in (task for task in tasks if task.session == session):
                    late[task.id] = await client.follow(Reading(task.id))

    async with asyncio.TaskGroup() as group:
        for user in sorted(set(owners.values())):
            group.create_task(read_sessions_of(user))
    return Snapshot(tuple(rows), tasks, late)


async def _rows_of(client: Client, session: str) -> list[Row]:
    shown = (await client.conversation(session))["messages"]
    return [
        Row(session, row["sequence"], row["role"], row["task_id"], row["content"], row["message_id"]) for row in shown
    ]
