"""Checks of PostgreSQL: reach, version, clock, migrations, indexes, executors and stuck tasks. They write nothing."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final

import asyncpg

from backend.chat.leases.clock_skew import ClockSkew
from backend.chat.store.operators.stuck import StuckTasks, find_stuck
from backend.config import Settings
from backend.errors import ConfigError, Unavailable
from backend.logs import why_away
from backend.migrating import read_migrations, require_migrated
from backend.operating.findings import Finding, error, ok, warning
from backend.postgres import Connection, Database

OLDEST_VERSION: Final = 14
WAITS_TOO_LONG = 60.0
"""Seconds after which a turn that waits for an executor counts as stuck."""
_CLOCKS_APART = 5.0  # seconds
_SLOW_MS = 50.0
_INDEX = re.compile(r'^(CREATE (?:UNIQUE )?INDEX "(\w+)" ON [^;]+);', re.MULTILINE)
_DROPPED = re.compile(r'^DROP INDEX (?:IF EXISTS )?"(\w+)"', re.MULTILINE)
_INDEXES = """
SELECT c.relname AS name, i.indisvalid AND i.indisready AS valid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('tasks'))"""
_FACTS = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
  current_setting('transaction_read_only') = 'on' AS read_only,
  extract(epoch FROM clock_timestamp())::float8 AS clock"""


async def check_postgres(settings: Settings) -> AsyncIterator[Finding]:
    """Yields the findings. Ends with the first one if PostgreSQL cannot be reached."""
    try:
        async with Database.open(settings.database_dsn, size=2) as database:
            async for finding in _check(database, settings):
                yield finding
    except (ConfigError, Unavailable) as away:
        reason = str(away) if str(away) else why_away(away.__cause__ or away)
        yield error("postgres", reason, "see docs/runbook.md, When a store is unavailable")


async def _check(database: Database, settings: Settings) -> AsyncIterator[Finding]:
    async with database.connection() as c:
        for finding in await _check_server(c):
            yield finding
    try:
        await require_migrated(database)
    except ConfigError as behind:
        yield error("migrations", str(behind), "run `python -m backend migrate`")
        return
    yield ok("migrations", f"{len(read_migrations())} applied")
    async with database.connection() as c:
        for finding in (*await _check_indexes(c), *await _check_tasks(c)):
            yield finding


async def _check_server(c: Connection) -> list[Finding]:
    skew = ClockSkew(_CLOCKS_APART)
    began = time.monotonic()
    with skew.measured() as reading:
        row = await c.fetchrow(_FACTS)
        assert row is not None
        reading.clock = row["clock"]
    took = 1000 * (time.monotonic() - began)
    found = [ok("postgres", f"version {row['version']}, answers in {took:.1f} ms")]
    if row["number"] < OLDEST_VERSION * 10_000:
        found.append(error("postgres", f"version {row['version']}", f"use {OLDEST_VERSION} or later"))
    if row["read_only"]:
        found.append(error("postgres", "it takes no writes", "let DATABASE_URL name the primary: docs/postgres.md"))
    if took > _SLOW_MS:
        found.append(warning("postgres", f"it took {took:.0f} ms to answer", "use a server nearby"))
    if skew.too_large:
        found.append(error("clock", f"{skew.seconds:+.1f} s against PostgreSQL", "set both clocks by NTP"))
    else:
        found.append(ok("clock", f"{skew.seconds:+.3f} s against PostgreSQL"))
    return found


def _wanted_indexes() -> dict[str, str]:
    """Returns the statement of every index that the migrations leave behind, by its name."""
    wanted: dict[str, str] = {}
    for migration in read_migrations():
        wanted |= {name: statement for statement, name in _INDEX.findall(migration.sql)}
        for name in _DROPPED.findall(migration.sql):
            wanted.pop(name, None)
    return wanted


async def _check_indexes(c: Connection) -> list[Finding]:
    valid = {row["name"]: row["valid"] for row in await c.fetch(_INDEXES)}
    found = list(_index_findings(valid))
    return found or [ok("indexes", f"{len(_wanted_indexes())} of the migrations are there and valid")]


def _index_findings(valid: dict[str, bool]) -> Iterator[Finding]:
    for name, statement in _wanted_indexes().items():
        if name not in valid:
            yield error("indexes", f"{name} is missing", f"run in psql: {' '.join(statement.split())};")
        elif not valid[name]:
            yield error("indexes", f"{name} is invalid", f"run in psql: REINDEX INDEX CONCURRENTLY {name};")


async def _check_tasks(c: Connection) -> list[Finding]:
    try:
        stuck = await find_stuck(c, waits=WAITS_TOO_LONG)
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        return []
    return list(_task_findings(stuck))


def _task_findings(stuck: StuckTasks) -> Iterator[Finding]:
    if stuck.executors:
        yield ok("executors", f"{stuck.executors} alive")
    else:
        yield error("executors", "none is alive", "start `python -m executor`; no message is answered without one")
    for tasks, what, advice in (
        (stuck.waiting, f"turns have waited for an executor for over {WAITS_TOO_LONG:.0f} s",
         "see docs/runbook.md, Messages are accepted and not answered; `tasks requeue ID` publishes one again"),
        (stuck.abandoned, "tasks belong to an executor that is dead",
         "a living executor takes them over within 25 s; `tasks requeue ID` does it now"),
        (stuck.overdue, "operations have passed their deadline",
         "a living executor ends them within 2 s; `tasks cancel ID` does it now"),
    ):  # fmt: skip
        if tasks:
            yield error(
                "tasks", f"{len(tasks)} {what}: {', '.join(tasks[:5])}{', …' if len(tasks) > 5 else ''}", advice
            )
    if not (stuck.waiting or stuck.abandoned or stuck.overdue):
        yield ok("tasks", "none is stuck")
