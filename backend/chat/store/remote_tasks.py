"""Tasks at tool servers that do the work of operations. Executors ask the servers for their outcomes.

A row is there from the moment in which the server has accepted the work until its outcome is stored, or until the
server was told to stop because the operation has ended without it. It outlives the session's deletion.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from backend.chat.outcomes import RemoteTask
from backend.chat.store.operations import PENDING
from backend.ids import ExecutorId, SessionId, TaskId, UserId
from backend.postgres import Connection

KEPT = 3600.0
"""Seconds for which a row is kept whose operation has ended and whose server cannot be told."""


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """A remote task for which this executor asks. `task_id` is its operation's."""

    task_id: TaskId
    remote: RemoteTask


_ADD = """
INSERT INTO remote_tasks (id, server, tool, remote_id, whose, executor, due_at)
VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))"""


async def add(c: Connection, task_id: TaskId, remote: RemoteTask, executor: ExecutorId, *, due_in: float) -> None:
    """Stores the task of a new operation. `executor` asks for it, in `due_in` seconds for the first time."""
    await c.execute(_ADD, task_id, remote.server, remote.tool, remote.id, remote.whose, executor, due_in)


UNNAMED = "?"
"""The beginning of the id of a task whose server may not have it yet; the operation's id follows."""
_NAME = """
WITH named AS (UPDATE remote_tasks SET remote_id = $2, due_at = now() + make_interval(secs => $3) WHERE id = $1)
UPDATE tasks SET request = request || jsonb_build_object('remote_id', $2::text) WHERE id = $1"""


async def name_task(c: Connection, task_id: TaskId, remote_id: str, *, due_in: float) -> None:
    """Stores the id that the server gave to a task which was added UNNAMED, and makes it due in `due_in` seconds.

    Its operation keeps the id as well.
    """
    await c.execute(_NAME, task_id, remote_id, due_in)


_FIND = "SELECT server, tool, remote_id, whose FROM remote_tasks WHERE id = $1"


async def find(c: Connection, task_id: TaskId) -> RemoteTask | None:
    """Returns the remote task of an operation, or None if it has ended or been stopped."""
    row = await c.fetchrow(_FIND, task_id)
    return None if row is None else RemoteTask(*row.values())


_COUNT_BEGUN = """
SELECT count(*) FROM tasks WHERE session_id = $1 AND kind = 'operation' AND request->'order'->>'kind' = $2"""


async def count_begun(c: Connection, session_id: SessionId, kind: str) -> int:
    """Returns how many operations of the session have an order of that kind, ended ones included."""
    number: int = await c.fetchval(_COUNT_BEGUN, session_id, kind)
    return number


_GRAPH_OF = """
SELECT request->>'graph_id' FROM tasks
WHERE quota_key = 'user:' || $1 AND kind = 'operation' AND request->>'remote_id' = $2 AND request->>'remote' = $3
ORDER BY number DESC LIMIT 1"""


async def graph_of(c: Connection, user_id: UserId, server: str, remote_id: str) -> str | None:
    """Returns the id of the agent that a remote task of the user runs. None if the user began no such task."""
    graph_id: str | None = await c.fetchval(_GRAPH_OF, user_id, remote_id, server)
    return graph_id


_CLAIM = f"""
WITH wanted AS (
  SELECT picked.id FROM unnest($2::text[], $3::int[]) AS free (server, room) CROSS JOIN LATERAL (
    SELECT r.id, r.due_at FROM remote_tasks r
    WHERE r.server = free.server AND (r.executor = $1 OR r.executor IS NULL) AND NOT r.id = ANY($4::text[])
      AND (r.due_at <= now() OR (NOT r.stopping AND NOT EXISTS (
        SELECT FROM tasks t WHERE t.id = r.id AND {PENDING} AND cancel_requested_at IS NULL)))
    ORDER BY r.due_at LIMIT free.room FOR UPDATE OF r SKIP LOCKED) AS picked
  ORDER BY picked.due_at LIMIT $5
)
UPDATE remote_tasks r SET executor = $1 FROM wanted WHERE r.id = wanted.id
RETURNING r.id, r.server, r.tool, r.remote_id, r.whose"""


async def claim_due(
    c: Connection, me: ExecutorId, rooms: Mapping[str, int], besides: Collection[TaskId], *, most: int
) -> list[ClaimedTask]:
    """Claims due tasks and those whose operation has ended: at most `rooms[server]` of each server, and `most` of all.

    The claim lasts until the executor dies. Leaves out the tasks in `besides`, which the executor polls already.
    """
    rows = await c.fetch(_CLAIM, me, list(rooms), list(rooms.values()), list(besides), most)
    return [
        ClaimedTask(TaskId(row["id"]), RemoteTask(row["server"], row["tool"], row["remote_id"], row["whose"]))
        for row in rows
    ]


_PUT_OFF = """
UPDATE remote_tasks SET due_at = now() + make_interval(secs => $3), stopping = $4 WHERE id = $1 AND executor = $2"""


async def postpone(c: Connection, task_id: TaskId, me: ExecutorId, *, due_in: float, stopping: bool = False) -> None:
    """Makes the task due again in `due_in` seconds. With `stopping`, the end of its operation does not make it due."""
    await c.execute(_PUT_OFF, task_id, me, due_in, stopping)


_BRING_FORWARD = """
UPDATE remote_tasks SET due_at = least(due_at, now() + make_interval(secs => $3)) WHERE id = $1 AND executor = $2"""


async def bring_forward(c: Connection, task_id: TaskId, me: ExecutorId, *, due_in: float) -> None:
    """Makes the task due in `due_in` seconds, unless it is due sooner."""
    await c.execute(_BRING_FORWARD, task_id, me, due_in)


_KEEP_NOTES = f"UPDATE tasks SET request = jsonb_set(request, '{{notes}}', $2) WHERE id = $1 AND {PENDING}"


async def keep_notes(c: Connection, task_id: TaskId, notes: Sequence[str]) -> None:
    """Stores the notes that the model gets with the outcome. They replace those of before."""
    await c.execute(_KEEP_NOTES, task_id, list(notes))


_FORGET = "DELETE FROM remote_tasks WHERE id = $1"


async def forget(c: Connection, task_id: TaskId) -> None:
    """Removes the task of an operation whose outcome is stored, or whose server was told to stop."""
    await c.execute(_FORGET, task_id)


_EXECUTORS = "SELECT DISTINCT executor FROM remote_tasks WHERE executor IS NOT NULL"


async def executors(c: Connection) -> set[ExecutorId]:
    """Returns the executors that ask for remote tasks."""
    return {ExecutorId(row["executor"]) for row in await c.fetch(_EXECUTORS)}


_RELEASE = f"""
UPDATE remote_tasks r SET executor = NULL WHERE executor = $1 AND NOT EXISTS (
  SELECT FROM tasks t WHERE t.id = r.id AND {PENDING} AND t.request->>'runner' = $1)"""


async def release_of(c: Connection, executor: ExecutorId) -> None:
    """Leaves the tasks of a dead executor to the others.

    A task that ended together with its executor stays until its operation has ended too: the server of another executor
    does not know the task, and would report it as lost.
    """
    await c.execute(_RELEASE, executor)


_PRUNE = f"""
DELETE FROM remote_tasks r WHERE due_at < now() - make_interval(secs => $1) AND NOT EXISTS (
  SELECT FROM tasks t WHERE t.id = r.id AND {PENDING} AND cancel_requested_at IS NULL)"""


async def prune(c: Connection) -> None:
    """Removes tasks of ended operations for which no executor has asked for KEPT seconds."""
    await c.execute(_PRUNE, KEPT)
