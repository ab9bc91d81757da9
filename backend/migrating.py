"""Applies the migrations of backend/migrations like `prisma migrate deploy`, and records them in its table."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import asyncpg

from backend.errors import ConfigError, Unavailable
from backend.postgres import (
    CONNECT_TIMEOUT,
    Connection,
    Database,
    Row,
    away_at_start,
    refusal_named,
    refusals_named,
    translated_errors,
)
from backend.postgres_address import Address, quoted

FOLDER = Path(__file__).parent / "migrations"
LOCK_TIMEOUT = 60.0
"""Seconds that a statement waits for a lock, and that this process waits for another one that holds the lock of
migrations and does nothing."""
LOCK_PAUSE, LOOK_EVERY = 0.1, 1.0
"""Seconds between two tries to become the process that migrates, and between two looks at what the other one does."""
BUILD_TIMEOUT = 3_600.0
"""Seconds that the building of an index may take. It goes on beside writes, and waits for older transactions."""
WAIT_LIMIT = 2 * BUILD_TIMEOUT + LOCK_TIMEOUT
"""Seconds that this process waits for another one that migrates: long enough to drop a half built index and build
it again."""
UNSEEN_LIMIT = 600.0
"""Seconds that this process waits for another one that migrates if Postgres does not show what that one does.
It waits longer while an index is built."""
_PRISMA_LOCK = 72_707_369  # the advisory lock of prisma migrate, so that the two never run at the same time

_RECORDS = """
CREATE TABLE IF NOT EXISTS _prisma_migrations (
    id                  VARCHAR(36) PRIMARY KEY NOT NULL,
    checksum            VARCHAR(64) NOT NULL,
    finished_at         TIMESTAMPTZ,
    migration_name      VARCHAR(255) NOT NULL,
    logs                TEXT,
    rolled_back_at      TIMESTAMPTZ,
    started_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    applied_steps_count INTEGER NOT NULL DEFAULT 0
)"""

_RECORDED = """
SELECT migration_name, checksum, finished_at FROM _prisma_migrations WHERE rolled_back_at IS NULL ORDER BY started_at"""

_APPLIED = """
SELECT migration_name FROM _prisma_migrations WHERE rolled_back_at IS NULL AND finished_at IS NOT NULL"""

_RECORD = """
INSERT INTO _prisma_migrations (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
VALUES ($1, $2, $3, $4, clock_timestamp(), 1)"""

_CONCURRENTLY = re.compile(r'CREATE INDEX CONCURRENTLY IF NOT EXISTS "(\w+)" ON "(\w+)"\((.+)\);')
_IS_BROKEN = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid)"

# What the process that holds the lock runs, or the index that is built in this database: that is another connection of
# it, while its own is idle in the transaction that holds the lock. A role that may not see that (`unseen`) still sees
# that an index is built.
_AT_WORK = """
WITH holders AS (
  SELECT a.state, a.query FROM pg_locks l JOIN pg_stat_activity a USING (pid)
  WHERE l.locktype = 'advisory' AND l.granted AND (l.classid, l.objid, l.objsubid) = (0, $1::oid, 1)
    AND a.datname = current_database())
SELECT coalesce(
  (SELECT coalesce(format('%s, ' || blocks_done || ' of ' || blocks_total || ' blocks', phase), 'an index is built')
   FROM pg_stat_progress_create_index WHERE datname = current_database() LIMIT 1),
  (SELECT left(query, 100) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
   AND query ~ '^(CREATE|DROP) INDEX CONCURRENTLY' LIMIT 1),
  (SELECT left(query, 100) FROM holders WHERE state NOT LIKE 'idle%' LIMIT 1)) AS work,
  EXISTS (SELECT FROM holders WHERE state IS NULL) AS unseen"""
_UNSEEN = "another process migrates, and this role may not see what it does; `GRANT pg_read_all_stats TO ...` lets it"

logger = logging.getLogger(__name__)


class Index(NamedTuple):
    """An index, with the list of its columns as SQL."""

    name: str
    table: str
    columns: str


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    sql: str
    checksum: str

    @property
    def index(self) -> Index | None:
        """The index that this migration builds while others write, or None. Such a migration does nothing else."""
        found = _CONCURRENTLY.search(self.sql)
        return None if found is None else Index(*found.groups())


def read_migrations(folder: Path = FOLDER) -> list[Migration]:
    """Reads every `<timestamp>_<name>/migration.sql`, oldest first."""
    files = sorted(folder.glob("*/migration.sql"))
    return [Migration(f.parent.name, f.read_text("utf-8"), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


async def migrate(dsn: str, folder: Path = FOLDER) -> list[str]:
    """Creates the database if it does not exist, applies the pending migrations, and returns their names.

    Several processes may do so at the same time. Raises ConfigError if a migration was changed after it was applied,
    was left unfinished by another tool, or fails; Unavailable if Postgres is unavailable.
    """
    address = Address.parse(dsn)
    migrations = await asyncio.to_thread(read_migrations, folder)
    with away_at_start(address), translated_errors():
        connection = await _connect_or_make(address)
        try:
            await _prepare_schema(connection, address.schema)
            applied = []
            while (migration := await _apply_next(connection, address, migrations)) is not None:
                logger.info("migration applied", extra={"migration": migration.name})
                applied.append(migration.name)
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT)
    return applied


async def require_migrated(database: Database, folder: Path = FOLDER) -> None:
    """Raises ConfigError if a migration is pending. A database with newer migrations is accepted."""
    migrations = await asyncio.to_thread(read_migrations, folder)
    try:
        async with database.connection() as c:
            applied = {row["migration_name"] for row in await c.fetch(_APPLIED)}
    except asyncpg.UndefinedTableError:
        applied = set()
    except asyncpg.InsufficientPrivilegeError:
        return  # a role that may not read this table; another role migrates
    behind = sum(migration.name not in applied for migration in migrations)
    if behind:
        state = f"is behind by {behind}" if applied else "has no tables yet"
        raise ConfigError(f"DATABASE_URL: the database {state}; run `python -m backend migrate`")


async def _connect(address: Address) -> asyncpg.Connection[asyncpg.Record]:
    options = {**address.driver_options, "statement_cache_size": 0}
    with refusal_named():
        return await asyncpg.connect(address.dsn, timeout=CONNECT_TIMEOUT, **options)


async def _connect_or_make(address: Address) -> asyncpg.Connection[asyncpg.Record]:
    """Connects to the database. If it does not exist, creates it through the maintenance database."""
    with refusals_named():
        try:
            return await _connect(address)
        except Unavailable as error:
            if not isinstance(error.__cause__, asyncpg.InvalidCatalogNameError):
                raise
            maintenance = await _connect(address.other_database("postgres"))
    try:
        await maintenance.execute(f"CREATE DATABASE {quoted(address.database)}")
        logger.info("created the database", extra={"database": address.database})
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        pass  # another process created it first
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(f"DATABASE_URL: the database does not exist and cannot be created: {error}") from None
    finally:
        await maintenance.close(timeout=CONNECT_TIMEOUT)
    return await _connect(address)


async def _prepare_schema(connection: Connection, schema: str | None) -> None:
    """Creates the schema of the DSN and the table of records if they are missing."""
    async with _migrating(connection):
        if schema is not None:
            if await connection.fetchval("SELECT to_regnamespace($1)", quoted(schema)) is None:
                await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
            await connection.execute(f"SET LOCAL search_path TO {quoted(schema)}")
        await connection.execute(_RECORDS)


@asynccontextmanager
async def _migrating(connection: Connection) -> AsyncIterator[None]:
    """Opens a transaction that holds the lock of migrations.

    Waits for another process that migrates, as long as it is seen at work, up to WAIT_LIMIT seconds. Raises
    LockNotAvailableError then, or if it has done nothing for LOCK_TIMEOUT seconds. If this role may not see what it
    does, those are UNSEEN_LIMIT seconds.

    It is not a session's lock, because behind a pooler a session outlives its client and would keep it. A process that
    waits asks again and again, each time in a new transaction: an index that is being built waits for older ones.
    """
    wait = _Wait()
    while True:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT:.0f}s'")
            if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _PRISMA_LOCK):
                yield
                return
            await wait.look(connection)
        await asyncio.sleep(LOCK_PAUSE)


class _Wait:
    """The wait for another process that migrates."""

    def __init__(self) -> None:
        now = time.monotonic()
        self._limit, self._deadline, self._next_look = now + WAIT_LIMIT, now + LOCK_TIMEOUT, now + LOOK_EVERY
        self._unseen_until = now + UNSEEN_LIMIT
        self._unseen = self._told = False

    async def look(self, connection: Connection) -> None:
        """Checks every LOOK_EVERY seconds if the other process is at work, and logs once what it does.

        Raises LockNotAvailableError if the wait is over.
        """
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            seen = await connection.fetchrow(_AT_WORK, _PRISMA_LOCK)
            assert seen is not None, "it is one row"
            if seen["work"] is not None:
                self._deadline = now + LOCK_TIMEOUT
                self._unseen_until = now + UNSEEN_LIMIT
            self._unseen = seen["unseen"]
            if seen["work"] is not None or self._unseen:
                self._tell(seen["work"])
        if now > min(self._unseen_until if self._unseen else self._deadline, self._limit):
            raise asyncpg.LockNotAvailableError(_UNSEEN if self._unseen else "another process migrates")

    def _tell(self, work: str | None) -> None:
        """Logs once what the other process does. `None` means that Postgres does not show it to this role."""
        if not self._told:
            told = {"it_does": work, "at_most_s": WAIT_LIMIT} if work else {"error": _UNSEEN, "at_most_s": UNSEEN_LIMIT}
            logger.info("waiting for another process that migrates", extra=told)
        self._told = True


def _not_applied(migrations: Sequence[Migration], recorded: Sequence[Row]) -> list[Migration]:
    """Returns the pending migrations. Ignores records of migrations that only a newer version has.

    Raises ConfigError if a recorded migration is unfinished or was changed.
    """
    for row in recorded:
        if row["finished_at"] is None:
            raise ConfigError(
                f"migration {row['migration_name']} was begun but not finished; see `prisma migrate resolve`"
            )
    applied = {row["migration_name"]: row["checksum"] for row in recorded}
    for migration in migrations:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise ConfigError(f"migration {migration.name} was changed after it was applied")
    return [migration for migration in migrations if migration.name not in applied]


async def _apply_next(connection: Connection, address: Address, migrations: Sequence[Migration]) -> Migration | None:
    """Runs and records the first pending migration in one transaction. Returns None if there is none.

    Raises ConfigError if the migration fails.
    """
    async with _migrating(connection):
        if address.schema is not None:
            await connection.execute(f"SET LOCAL search_path TO {quoted(address.schema)}")
        pending = _not_applied(migrations, await connection.fetch(_RECORDED))
        if not pending:
            return None
        migration = pending[0]
        started_at = await connection.fetchval("SELECT clock_timestamp()")
        try:
            await _run(connection, address, migration)
        except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
            raise ConfigError(f"migration {migration.name} failed: {error}") from error
        await connection.execute(_RECORD, str(uuid.uuid4()), migration.checksum, migration.name, started_at)
        return migration


async def _run(connection: Connection, address: Address, migration: Migration) -> None:
    """Runs a migration in the transaction of `connection`. Builds an index outside of it: writes need not wait then."""
    if (index := migration.index) is None:
        await connection.execute(migration.sql)
        return
    # a simple query: it ends the portal of the query before, for whose snapshot the index would wait
    await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    await _build(address, index)


async def _build(address: Address, index: Index) -> None:
    """Builds an index on a connection of its own, outside of a transaction. Replaces one that was left half built.

    Behind a pooler a connection has no search path, so the names have their schema.
    """
    within = "" if address.schema is None else f"{quoted(address.schema)}."
    builder = await _connect(address)
    try:
        if await builder.fetchval(_IS_BROKEN, f'{within}"{index.name}"'):
            await builder.execute(f'DROP INDEX CONCURRENTLY {within}"{index.name}"', timeout=BUILD_TIMEOUT)
        build = f'CREATE INDEX CONCURRENTLY IF NOT EXISTS "{index.name}" ON {within}"{index.table}"({index.columns})'
        await builder.execute(build, timeout=BUILD_TIMEOUT)
    finally:
        await builder.close(timeout=CONNECT_TIMEOUT)
