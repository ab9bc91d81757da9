"""Tasks that do not move although they should. For operators; the sweeper repairs the same by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.chat.store.executors import DEAD_AFTER
from backend.ids import TaskId
from backend.postgres import Connection

LATE = 10.0
"""Seconds after its deadline for which an operation may wait for the sweeper."""


@dataclass(frozen=True, slots=True)
class StuckTasks:
    """Up to 500 tasks of each kind, oldest first, and the number of executors that are alive by their rows.

    `waiting` turns wait for an executor for too long, `abandoned` ones have an owner that is dead, `overdue` ones are
    operations after their deadline.
    """

    executors: int
    waiting: Sequence[TaskId]
    abandoned: Sequence[TaskId]
    overdue: Sequence[TaskId]


_ALIVE = "SELECT count(*) FROM executors WHERE seen_at > clock_timestamp() - make_interval(secs => $1)"
_WAITING = """
SELECT id FROM tasks WHERE active_session_id IS NOT NULL AND owner IS NULL
  AND coalesce(active_since, created_at) < now() - make_interval(secs => $1) ORDER BY number LIMIT 500"""
_ABANDONED = """
SELECT id FROM tasks t WHERE owner IS NOT NULL AND status = 'running' AND NOT EXISTS (
  SELECT FROM executors e WHERE e.id = t.owner AND e.seen_at > clock_timestamp() - make_interval(secs => $1))
  AND started_at < now() - make_interval(secs => $1) ORDER BY number LIMIT 500"""
_OVERDUE = """
SELECT id FROM tasks WHERE deadline_at < now() - make_interval(secs => $1) AND status = 'running' AND owner IS NULL
ORDER BY number LIMIT 500"""


async def find_stuck(c: Connection, *, waits: float) -> StuckTasks:
    """Returns the stuck tasks. A turn counts if it waits for an executor for `waits` seconds."""
    waiting, abandoned, overdue = [
        [TaskId(row["id"]) for row in await c.fetch(statement, seconds)]
        for statement, seconds in ((_WAITING, waits), (_ABANDONED, DEAD_AFTER), (_OVERDUE, LATE))
    ]
    return StuckTasks(await c.fetchval(_ALIVE, DEAD_AFTER), waiting, abandoned, overdue)
