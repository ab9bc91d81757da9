"""Executors as Postgres knows them: the slow heartbeat, and who sweeps now. All ages are by Postgres' own clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backend.ids import ExecutorId
from backend.postgres import Connection

BEAT_EVERY = 5.0
DEAD_AFTER = 20.0
_SWEEP_LOCK = 7_273_001

_BEAT = """
INSERT INTO executors (id, seen_at) VALUES ($1, clock_timestamp())
ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"""

_LAST_SEEN = "SELECT extract(epoch FROM clock_timestamp() - seen_at)::float8 FROM executors WHERE id = $1"
_FORGET = "DELETE FROM executors WHERE id = $1"
_PRUNE = "DELETE FROM executors WHERE seen_at < clock_timestamp() - make_interval(secs => $1)"

_TRY_SWEEP = "SELECT pg_try_advisory_xact_lock($1)"


async def beat(c: Connection, executor_id: ExecutorId) -> None:
    """Says that this executor is alive now."""
    await c.execute(_BEAT, executor_id)


async def last_seen(c: Connection, executor_id: ExecutorId) -> float | None:
    """Seconds since its last beat; None for one that never beat or said goodbye."""
    seconds: float | None = await c.fetchval(_LAST_SEEN, executor_id)
    return seconds


async def forget(c: Connection, executor_id: ExecutorId) -> None:
    """The goodbye of an executor that stops."""
    await c.execute(_FORGET, executor_id)


async def prune(c: Connection, *, older_than: float) -> None:
    """Drops executors that have been silent for so many seconds."""
    await c.execute(_PRUNE, older_than)


@asynccontextmanager
async def sweeping(c: Connection) -> AsyncIterator[bool]:
    """Whether this is the one that sweeps; nobody else gets True before the body ends or the connection is lost.

    Holds a transaction open on `c`: the body does its work on other connections.
    """
    async with c.transaction():
        mine: bool = await c.fetchval(_TRY_SWEEP, _SWEEP_LOCK)
        yield mine
