"""Executors in Postgres: their slow heartbeat, and the lock of the sweep. All ages are measured by Postgres' clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backend.ids import ExecutorId
from backend.postgres import Connection

BEAT_EVERY = 5.0
"""Seconds between two heartbeats in Postgres."""
DEAD_AFTER = 20.0
"""Seconds since its last heartbeat after which an executor counts as dead."""
_SWEEP_LOCK = 7_273_001
"""The number of the advisory lock that the sweeping executor holds."""


@dataclass(frozen=True)
class Beat:
    """The answer to a heartbeat."""

    clock: float
    """The time of Postgres, in seconds since 1970."""
    has_claims: bool
    """True if the executor has claimed a task that has not ended."""


_BEAT = """
INSERT INTO executors (id, seen_at) VALUES ($1, clock_timestamp())
ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
RETURNING extract(epoch FROM clock_timestamp())::float8 AS clock,
  EXISTS (SELECT FROM tasks WHERE owner = $1) AS has_claims"""


async def beat(c: Connection, executor_id: ExecutorId) -> Beat:
    """Records that this executor is alive now."""
    row = await c.fetchrow(_BEAT, executor_id)
    assert row is not None
    return Beat(row["clock"], row["has_claims"])


_LAST_SEEN = "SELECT extract(epoch FROM clock_timestamp() - seen_at)::float8 FROM executors WHERE id = $1"


async def last_seen(c: Connection, executor_id: ExecutorId) -> float | None:
    """Returns the seconds since the executor's last heartbeat. None if it never sent one, or was forgotten."""
    seconds: float | None = await c.fetchval(_LAST_SEEN, executor_id)
    return seconds


_FORGET = "DELETE FROM executors WHERE id = $1"


async def forget(c: Connection, executor_id: ExecutorId) -> None:
    """Removes an executor that stops."""
    await c.execute(_FORGET, executor_id)


_PRUNE = "DELETE FROM executors WHERE seen_at < clock_timestamp() - make_interval(secs => $1)"


async def prune(c: Connection, *, older_than: float) -> None:
    """Removes executors whose last heartbeat is more than `older_than` seconds old."""
    await c.execute(_PRUNE, older_than)


_TRY_SWEEP = "SELECT pg_try_advisory_xact_lock($1)"


@asynccontextmanager
async def sweeping(c: Connection) -> AsyncIterator[bool]:
    """Yields whether the caller may sweep. Until the body ends or the connection is lost, no other caller gets True.

    Holds a transaction open on `c`, so the body may read on `c`, but must use other connections to write.
    """
    async with c.transaction():
        mine: bool = await c.fetchval(_TRY_SWEEP, _SWEEP_LOCK)
        yield mine
