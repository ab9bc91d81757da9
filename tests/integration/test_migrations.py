"""The migrated database is what schema.prisma says, and the record of it is Prisma's."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from backend.errors import ConfigError, Unavailable
from backend.migrating import FOLDER, migrate, read_migrations
from backend.postgres import Database
from tests import ROOT
from tests.integration.catalog import catalog_of, execute
from tests.speed import limit

SECOND = "20990101000000_second"


@pytest.fixture(scope="session")
async def schema_as_sql() -> str:
    """Returns the SQL that makes the tables of schema.prisma, from the prisma CLI in `prisma/`."""
    if shutil.which("npm") is None:
        pytest.fail("the prisma CLI needs Node and npm: apt-get install -y npm")
    command = "prisma/prisma.sh migrate diff --from-empty --to-schema-datamodel schema.prisma --script"
    process = await asyncio.create_subprocess_exec(
        *command.split(), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(limit(100)):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations, to change."""
    return Path(shutil.copytree(FOLDER, tmp_path / "migrations"))


def add_migration(folder: Path, sql: str, name: str = SECOND) -> Path:
    (folder / name).mkdir()
    (folder / name / "migration.sql").write_text(sql)
    return folder / name / "migration.sql"


@pytest.fixture
async def made_from_schema(empty_postgres_dsn: str, schema_as_sql: str) -> str:
    await execute(empty_postgres_dsn, schema_as_sql)
    return empty_postgres_dsn


async def test_the_migrated_database_is_what_schema_prisma_says(postgres_dsn: str, made_from_schema: str) -> None:
    migrated, wanted = await catalog_of(postgres_dsn), await catalog_of(made_from_schema)
    assert migrated - wanted == set(), "in the migrations and not in schema.prisma"
    assert wanted - migrated == set(), "in schema.prisma and not in the migrations: run prisma/migrate-diff.sh NAME"
    assert len(wanted) > 80


@pytest.mark.parametrize(
    "drift",
    [
        "ALTER TABLE tasks ADD COLUMN extra TEXT",
        "ALTER TABLE tasks ALTER COLUMN attempt TYPE BIGINT",
        "ALTER TABLE tasks ALTER COLUMN attempt DROP DEFAULT",
        "ALTER TABLE tasks ALTER COLUMN quota_key DROP NOT NULL",
        "DROP INDEX tasks_quota_key_status_idx",
        "CREATE INDEX tasks_extra ON tasks (status)",
        "ALTER TABLE usage DROP CONSTRAINT usage_task_id_fkey",
        "ALTER TABLE messages DROP CONSTRAINT messages_pkey",
        "CREATE TYPE mood AS ENUM ('good')",
        "ALTER TABLE executors RENAME TO workers",
    ],
)
async def test_a_database_that_differs_is_noticed(made_from_schema: str, drift: str) -> None:
    before = await catalog_of(made_from_schema)
    await execute(made_from_schema, drift)
    assert await catalog_of(made_from_schema) != before


async def test_migrations_are_recorded_as_prisma_does(empty_postgres_dsn: str) -> None:
    names = [migration.name for migration in read_migrations()]
    assert await migrate(empty_postgres_dsn) == names
    assert await migrate(empty_postgres_dsn) == []
    connection = await asyncpg.connect(empty_postgres_dsn, timeout=limit(20))
    rows = await connection.fetch("SELECT * FROM _prisma_migrations ORDER BY started_at")
    await connection.close()
    assert [row["migration_name"] for row in rows] == names
    for row in rows:
        sql = (FOLDER / row["migration_name"] / "migration.sql").read_bytes()
        assert row["checksum"] == hashlib.sha256(sql).hexdigest()
        assert str(uuid.UUID(row["id"])) == row["id"]
        assert row["started_at"] < row["finished_at"]
        assert (row["logs"], row["rolled_back_at"], row["applied_steps_count"]) == (None, None, 1)


async def test_processes_that_start_at_once_migrate_once(empty_postgres_dsn: str) -> None:
    async with asyncio.timeout(limit(60)):
        applied = await asyncio.gather(*(migrate(empty_postgres_dsn) for _ in range(4)))
    assert sorted(name for names in applied for name in names) == [migration.name for migration in read_migrations()]


@asynccontextmanager
async def other_migrating(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Another process that migrates: a transaction, idle now, that holds the lock."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(72707369)")
            yield connection
    finally:
        await connection.close()


async def test_a_process_waits_as_long_as_another_one_builds_an_index(
    empty_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, seconds in (("LOCK_TIMEOUT", 1.0), ("LOOK_EVERY", 0.1)):
        monkeypatch.setattr(f"backend.migrating.{name}", seconds)
    await execute(empty_postgres_dsn, "CREATE TABLE t (a int)")
    writer, builder = [await asyncpg.connect(empty_postgres_dsn) for _ in range(2)]
    try:
        async with other_migrating(empty_postgres_dsn):
            writing = writer.transaction()
            await writing.start()
            await writer.execute("INSERT INTO t VALUES (1)")  # the build waits for this transaction
            building = asyncio.create_task(builder.execute("CREATE INDEX CONCURRENTLY i ON t (a)"))
            waiting = asyncio.create_task(migrate(empty_postgres_dsn))
            await asyncio.wait({waiting}, timeout=limit(3))
            assert not waiting.done(), waiting.exception()
            await writing.rollback()
            await building
        assert len(await waiting) == len(read_migrations())
    finally:
        await writer.close()
        await builder.close()
    [told] = [record for record in caplog.records if "waiting for another process" in record.getMessage()]
    assert "waiting for writers" in told.__dict__["it_does"]


@pytest.mark.parametrize("at_work", [False, True])
async def test_a_process_does_not_wait_for_ever(
    empty_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, *, at_work: bool
) -> None:
    for name, seconds in (("LOCK_TIMEOUT", 0.5), ("LOOK_EVERY", 0.1), ("WAIT_LIMIT", 2.0)):
        monkeypatch.setattr(f"backend.migrating.{name}", seconds)
    async with other_migrating(empty_postgres_dsn) as other:
        working = asyncio.create_task(other.execute("SELECT pg_sleep(3)")) if at_work else None
        with pytest.raises(Unavailable, match="another process migrates"):
            await migrate(empty_postgres_dsn)
        if working is not None:
            await working


async def test_a_role_that_may_not_see_the_other_process_is_told_so_and_does_not_wait_long(
    empty_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, seconds in (("UNSEEN_LIMIT", 1.0), ("LOCK_TIMEOUT", 0.1), ("LOOK_EVERY", 0.1)):
        monkeypatch.setattr(f"backend.migrating.{name}", seconds)
    role = f"blind_{uuid.uuid4().hex[:8]}"
    await execute(empty_postgres_dsn, f"CREATE ROLE {role} LOGIN")
    address = urlsplit(empty_postgres_dsn)
    blind = address._replace(netloc=f"{role}@{address.netloc.rpartition('@')[2]}").geturl()
    try:
        async with other_migrating(empty_postgres_dsn), asyncio.timeout(limit(20)):
            with pytest.raises(Unavailable, match="may not see what it does; `GRANT pg_read_all_stats"):
                await migrate(blind)
    finally:
        await execute(empty_postgres_dsn, f"DROP ROLE {role}")
    [told] = [record for record in caplog.records if "waiting for another process" in record.getMessage()]
    assert "may not see" in told.__dict__["error"]


async def test_only_what_is_new_is_applied(empty_postgres_dsn: str, folder: Path) -> None:
    await migrate(empty_postgres_dsn)
    add_migration(folder, "ALTER TABLE tasks ADD COLUMN extra TEXT; CREATE INDEX tasks_extra_idx ON tasks (extra);")
    assert await migrate(empty_postgres_dsn, folder) == [SECOND]
    assert "index tasks_extra_idx" in "\n".join(await catalog_of(empty_postgres_dsn))
    assert await migrate(empty_postgres_dsn) == [], "an older version runs beside it"


async def test_a_migration_that_fails_leaves_nothing_behind(empty_postgres_dsn: str, folder: Path) -> None:
    await migrate(empty_postgres_dsn)
    before = await catalog_of(empty_postgres_dsn)
    file = add_migration(folder, "CREATE TABLE half (id TEXT); ALTER TABLE nowhere ADD COLUMN extra TEXT;")
    with pytest.raises(ConfigError, match=f"{SECOND} failed: relation .*nowhere"):
        await migrate(empty_postgres_dsn, folder)
    assert await catalog_of(empty_postgres_dsn) == before
    file.write_text("CREATE TABLE half (id TEXT);")
    assert await migrate(empty_postgres_dsn, folder) == [SECOND]


async def test_a_migration_that_was_changed_afterwards_is_refused(empty_postgres_dsn: str, folder: Path) -> None:
    file = add_migration(folder, "CREATE TABLE more (id TEXT);")
    await migrate(empty_postgres_dsn, folder)
    file.write_text("CREATE TABLE more (id UUID);")
    with pytest.raises(ConfigError, match=f"{SECOND} was changed after it was applied"):
        await migrate(empty_postgres_dsn, folder)


async def test_a_migration_that_another_tool_left_half_applied_is_refused(empty_postgres_dsn: str) -> None:
    await migrate(empty_postgres_dsn)
    begun = "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES ('1', 'c', 'other')"
    await execute(empty_postgres_dsn, begun)
    with pytest.raises(ConfigError, match="other was begun but not finished"):
        await migrate(empty_postgres_dsn)
    await execute(empty_postgres_dsn, "UPDATE _prisma_migrations SET rolled_back_at = now() WHERE id = '1'")
    assert await migrate(empty_postgres_dsn) == []


@pytest.fixture
async def missing_database(postgres_server_dsn: str) -> AsyncIterator[str]:
    name = f"copilot_test_{uuid.uuid4().hex[:12]}"
    yield urlsplit(postgres_server_dsn)._replace(path=f"/{name}").geturl()
    await execute(postgres_server_dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def test_a_missing_database_is_created_and_reported(
    missing_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with asyncio.timeout(limit(60)):
        applied = await asyncio.gather(*(migrate(missing_database) for _ in range(3)))
    assert sum(len(names) for names in applied) == len(read_migrations())
    assert [line.startswith("created the database") for line in caplog.messages].count(True) == 1


async def test_the_schema_of_the_url_is_where_the_tables_are(empty_postgres_dsn: str) -> None:
    joint = "&" if "?" in empty_postgres_dsn else "?"
    dsn = f"{empty_postgres_dsn}{joint}schema=Copilot-1&connection_limit=5"
    await migrate(dsn)
    assert await migrate(dsn) == []
    assert await catalog_of(empty_postgres_dsn) == set(), "nothing in public"
    async with Database.open(dsn, size=2) as database, database.connection() as c:
        assert await c.fetchval("SELECT count(*) FROM tasks") == 0
        assert await c.fetchval("SELECT current_schema()") == "Copilot-1"


async def test_a_server_that_is_away_is_unavailable(free_port: int) -> None:
    with pytest.raises(Unavailable):
        await migrate(f"postgresql://postgres@127.0.0.1:{free_port}/copilot")
