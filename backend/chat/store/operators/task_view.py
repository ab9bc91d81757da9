"""Tasks of all users, as an operator sees them: their states, and no text of a user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.ids import ExecutorId, SessionId, TaskId
from backend.postgres import Connection, Row

NEWEST = 100_000
"""The number of the newest tasks that are searched for those that have ended."""


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task. `state` says more than its status: a queued one `waits for an executor` or `for another turn`.

    `beat` is the age in seconds of its owner's last heartbeat in Postgres; None if it has no owner, or one without a
    row. `error` is the code of its failure.
    """

    id: TaskId
    session_id: SessionId
    kind: str
    status: str
    state: str
    owner: ExecutorId | None
    beat: float | None
    attempt: int
    crashes: int
    steps: int
    cancel_requested: bool
    tool_name: str | None
    error: str | None
    created_at: datetime
    active_since: datetime | None
    published_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None


_COLUMNS = """
SELECT t.id, t.session_id, t.kind, t.status, t.owner, t.attempt, t.crashes, t.steps, t.tool_name,
  t.cancel_requested_at IS NOT NULL AS cancel_requested, t.error->>'code' AS error, t.created_at, t.active_since,
  t.published_at, t.started_at, t.finished_at, t.deadline_at,
  extract(epoch FROM clock_timestamp() - e.seen_at)::float8 AS beat,
  CASE WHEN t.status NOT IN ('queued', 'running') THEN t.status
    WHEN t.owner IS NOT NULL THEN 'runs'
    WHEN t.deadline_at IS NOT NULL THEN 'pending'
    WHEN t.active_session_id IS NOT NULL THEN 'waits for an executor'
    ELSE 'waits for another turn' END AS state
FROM tasks t LEFT JOIN executors e ON e.id = t.owner"""
# every part of the condition has an index, so the cost does not grow with the tasks that have ended
_UNENDED = f"""{_COLUMNS} WHERE t.status IN ('queued', 'running') AND t.id IN (
  SELECT id FROM tasks WHERE active_session_id IS NOT NULL
  UNION SELECT w.id FROM tasks a JOIN tasks w ON w.session_id = a.session_id AND w.status = 'queued'
    WHERE a.active_session_id IS NOT NULL
  UNION SELECT id FROM tasks WHERE deadline_at IS NOT NULL
  UNION SELECT id FROM tasks WHERE owner IS NOT NULL)
ORDER BY t.number LIMIT $1"""
_ENDED = f"""{_COLUMNS} WHERE t.number > (SELECT max(number) FROM tasks) - {NEWEST} AND t.status = $2
ORDER BY t.number DESC LIMIT $1"""
_ONE = f"{_COLUMNS} WHERE t.id = $1"


async def list_unended(c: Connection, limit: int) -> Sequence[TaskView]:
    """Returns the tasks that run, wait or are pending, oldest first."""
    return [_parse(row) for row in await c.fetch(_UNENDED, limit)]


async def list_ended(c: Connection, status: str, limit: int) -> Sequence[TaskView]:
    """Returns the tasks that ended with this status, newest first, among the NEWEST tasks of all."""
    return [_parse(row) for row in await c.fetch(_ENDED, limit, status)]


async def find_task_view(c: Connection, task_id: TaskId) -> TaskView | None:
    row = await c.fetchrow(_ONE, task_id)
    return None if row is None else _parse(row)


def _parse(row: Row) -> TaskView:
    values = dict(row)
    ids = {"id": TaskId(row["id"]), "session_id": SessionId(row["session_id"])}
    owner = None if row["owner"] is None else ExecutorId(row["owner"])
    return TaskView(**{**values, **ids, "owner": owner})
