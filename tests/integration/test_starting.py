"""A process that cannot work says why, in one line, when it starts."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from backend.config import Settings
from backend.errors import ConfigError
from backend.migrating import migrate, require_migrated
from backend.postgres import Database
from tests.integration.catalog import execute
from tests.speed import limit

LIMIT = limit(60)
PROCESSES = pytest.mark.parametrize("command", [("backend", "serve"), ("executor",)], ids=" ".join)


async def last_words(folder: Path, *command: str, **settings: str) -> str:
    """What a process says that does not start; its exit code is 1."""
    ours = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command),
        cwd=folder,
        env=environment | {"PORT": "0", "EXECUTOR_PORT": "0", "QUEUE": "redis"} | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(LIMIT):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 1, output.decode()
    return output.decode()


@PROCESSES
async def test_without_settings_the_first_missing_one_is_named(short_path: Path, command: tuple[str, ...]) -> None:
    said = await last_words(short_path, *command)
    assert said.count("\n") == 1
    assert "DATABASE_URL (or DB_HOST) is not set" in said


@PROCESSES
async def test_an_empty_database_is_said_to_need_migrations(
    short_path: Path, command: tuple[str, ...], empty_postgres_dsn: str, redis_dsn: str
) -> None:
    said = await last_words(short_path, *command, DATABASE_URL=empty_postgres_dsn, REDIS_URL=redis_dsn)
    assert said.count("\n") == 1
    assert "run `python -m backend migrate`" in said


@pytest.mark.parametrize("command", [("backend", "serve"), ("backend", "migrate"), ("executor",)], ids=" ".join)
async def test_a_database_server_that_is_away_is_named_without_its_password(
    short_path: Path, command: tuple[str, ...], free_port: int
) -> None:
    dsn = f"postgresql://somebody:s3cr3t-pass@127.0.0.1:{free_port}/copilot"
    said = await last_words(short_path, *command, DATABASE_URL=dsn)
    wanted = f"DATABASE_URL (or DB_HOST): PostgreSQL at 127.0.0.1:{free_port}: Connection refused\n"
    assert said.count("\n") == 1
    assert said.endswith(wanted)


async def test_a_database_that_is_behind_is_refused_and_one_that_is_ahead_is_taken(empty_postgres_dsn: str) -> None:
    await migrate(empty_postgres_dsn)
    async with Database.open(empty_postgres_dsn, size=2) as database:
        later = (
            "INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at) VALUES ('1', '', 'x', now())"
        )
        await execute(empty_postgres_dsn, later)
        await require_migrated(database)
        await execute(empty_postgres_dsn, "UPDATE _prisma_migrations SET rolled_back_at = now() WHERE id <> '1'")
        with pytest.raises(ConfigError, match="is behind by"):
            await require_migrated(database)
