"""Applies the migrations of backend/migrations, as `prisma migrate deploy` would and in the table that it keeps."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from backend.errors import ConfigError
from backend.postgres import (
    CONNECT_TIMEOUT,
    Address,
    Connection,
    Database,
    Row,
    absence_named,
    away_at_start,
    refusals_named,
)

FOLDER = Path(__file__).parent / "migrations"
LOCK_TIMEOUT = 60.0
_PRISMA_LOCK = 72_707_369  # what prisma migrate takes, so that the two never run at once

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

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    sql: str
    checksum: str


def read_migrations(folder: Path = FOLDER) -> list[Migration]:
    """Every `<timestamp>_<name>/migration.sql`, oldest first."""
    files = sorted(folder.glob("*/migration.sql"))
    return [Migration(f.parent.name, f.read_text("utf-8"), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


async def migrate(dsn: str, folder: Path = FOLDER) -> list[str]:
    """Brings the database up to date, made if it does not exist, and returns the names of what was applied.

    Several processes may do so at once. Raises ConfigError when a migration was changed after it was applied, was
    left half-applied by another tool, or fails; Unavailable when Postgres is away.
    """
    address = Address.parse(dsn)
    migrations = await asyncio.to_thread(read_migrations, folder)
    with away_at_start(address), absence_named():
        connection = await _connect_or_make(address)
        try:
            await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT:.0f}s'")
            await connection.execute("SELECT pg_advisory_lock($1)", _PRISMA_LOCK)  # until the connection closes
            await _enter_schema(connection, address.schema)
            await connection.execute(_RECORDS)
            waiting = _not_applied(migrations, await connection.fetch(_RECORDED))
            for migration in waiting:
                await _apply(connection, migration)
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT)
    return [migration.name for migration in waiting]


async def require_migrated(database: Database, folder: Path = FOLDER) -> None:
    """Raises ConfigError when a migration is still to be applied: what is ahead of us serves us all the same."""
    migrations = await asyncio.to_thread(read_migrations, folder)
    try:
        async with database.connection() as c:
            applied = {row["migration_name"] for row in await c.fetch(_APPLIED)}
    except asyncpg.UndefinedTableError:
        applied = set()
    except asyncpg.InsufficientPrivilegeError:
        return  # a role with few rights: whoever migrates has another
    behind = sum(migration.name not in applied for migration in migrations)
    if behind:
        state = f"is behind by {behind}" if applied else "has no tables yet"
        raise ConfigError(f"DATABASE_URL: the database {state}: run `python -m backend migrate`")


async def _connect(address: Address) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(address.dsn, host=address.host, timeout=CONNECT_TIMEOUT)


async def _connect_or_make(address: Address) -> asyncpg.Connection[asyncpg.Record]:
    """A connection to the database, which is made through the maintenance database when it does not exist."""
    with refusals_named():
        try:
            return await _connect(address)
        except asyncpg.InvalidCatalogNameError:
            maintenance = await _connect(address.other_database("postgres"))
    try:
        await maintenance.execute(f"CREATE DATABASE {_quoted(address.database)}")
        logger.info("created the database, which did not exist", extra={"database": address.database})
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        pass  # somebody else was faster
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(f"DATABASE_URL: the database does not exist and cannot be made: {error}") from None
    finally:
        await maintenance.close(timeout=CONNECT_TIMEOUT)
    return await _connect(address)


async def _enter_schema(connection: Connection, schema: str | None) -> None:
    """Makes the schema of the DSN, if there is one, the place where tables are made and looked up."""
    if schema is None:
        return
    if await connection.fetchval("SELECT to_regnamespace($1)", _quoted(schema)) is None:
        await connection.execute(f"CREATE SCHEMA {_quoted(schema)}")
    await connection.execute(f"SET search_path TO {_quoted(schema)}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _not_applied(migrations: Sequence[Migration], recorded: Sequence[Row]) -> list[Migration]:
    """Those that are still to be applied. Records of migrations that only a newer version has are left alone."""
    for row in recorded:
        if row["finished_at"] is None:
            raise ConfigError(
                f"migration {row['migration_name']} was begun and not finished; see prisma migrate resolve"
            )
    applied = {row["migration_name"]: row["checksum"] for row in recorded}
    for migration in migrations:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise ConfigError(f"migration {migration.name} was changed after it was applied")
    return [migration for migration in migrations if migration.name not in applied]


async def _apply(connection: Connection, migration: Migration) -> None:
    """Runs and records the migration in one transaction: all of it, or nothing."""
    try:
        async with connection.transaction():
            started_at = await connection.fetchval("SELECT clock_timestamp()")
            await connection.execute(migration.sql)
            await connection.execute(_RECORD, str(uuid.uuid4()), migration.checksum, migration.name, started_at)
    except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        raise ConfigError(f"migration {migration.name} failed: {error}") from error
    logger.info("migration applied", extra={"migration": migration.name})
