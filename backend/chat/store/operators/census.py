"""The census: how many turns wait and operations have not ended, in the whole database, and how old the oldest is.

Its cost grows with the tasks that have not ended, and not with those that are stored: every part of the statement
finds its rows by an index on `active_session_id`, `session_id` or `deadline_at`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.postgres import Connection


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Tasks in one state: their number, and the age of the oldest in seconds, 0 if there is none."""

    number: int = 0
    oldest: float = 0.0


@dataclass(frozen=True, slots=True)
class RedisMemory:
    """Bytes that Redis uses, and may use; 0 is no limit."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Census:
    """`turns` has those that wait for an `executor`, or for another `turn` of their session to end.

    `operations` has those that are `unopened` (no service has accepted them), `pending`, or `continuing` (their outcome
    has come). Continuations that wait count as waiting turns, too.
    """

    turns: Mapping[str, TaskGroup]
    operations: Mapping[str, TaskGroup]
    redis: RedisMemory | None = None


_EMPTY = {
    "turns": ("executor", "turn"),
    "operations": ("unopened", "pending", "continuing"),
}
TAKE = """
WITH active AS MATERIALIZED (
  SELECT session_id, kind, status, coalesce(active_since, created_at) AS since FROM tasks
  WHERE active_session_id IS NOT NULL
), behind AS MATERIALIZED (
  SELECT t.kind, t.created_at AS accepted, coalesce(t.active_since, t.created_at) AS since
  FROM active JOIN tasks t ON t.session_id = active.session_id
  WHERE t.status = 'queued' AND t.active_session_id IS NULL
), found AS (
  SELECT 'turns' AS what, 'executor' AS state, since FROM active WHERE status = 'queued'
  UNION ALL SELECT 'turns', 'turn', accepted FROM behind
  UNION ALL SELECT 'operations', 'continuing', since FROM active WHERE kind = 'operation'
  UNION ALL SELECT 'operations', 'continuing', since FROM behind WHERE kind = 'operation'
  UNION ALL SELECT 'operations', CASE WHEN checkpoint IS NULL THEN 'unopened' ELSE 'pending' END, created_at
    FROM tasks WHERE deadline_at IS NOT NULL AND status = 'running' AND kind = 'operation'
)
SELECT what, state, count(*) AS number,
  greatest(extract(epoch FROM clock_timestamp() - min(since)), 0)::float8 AS oldest
FROM found GROUP BY what, state"""


async def take_census(c: Connection) -> Census:
    """Returns the census, without Redis."""
    groups = {what: dict.fromkeys(states, TaskGroup()) for what, states in _EMPTY.items()}
    for row in await c.fetch(TAKE):
        groups[row["what"]][row["state"]] = TaskGroup(row["number"], row["oldest"])
    return Census(groups["turns"], groups["operations"])
