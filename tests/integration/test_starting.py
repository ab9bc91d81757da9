"""Tests that a process which cannot work reports the reason in one line at its start."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from backend.config import Settings
from backend.errors import ConfigError
from backend.migrating import migrate, require_migrated
from backend.postgres import Database
from tests.integration.catalog import execute
from tests.servers.fork_server import start, start_command
from tests.servers.ports import free_port
from tests.servers.redis import redis_node
from tests.speed import limit

LIMIT = limit(60)
PROCESSES = pytest.mark.parametrize("command", [("backend", "serve"), ("executor",)], ids=" ".join)


async def output_of_failed_start(folder: Path, *command: str, forked: bool = True, **settings: str) -> str:
    """Runs a process that must fail with exit code 1, and returns its output."""
    known = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in known}
    environment |= {"PORT": "0", "EXECUTOR_PORT": "0", "QUEUE": "redis"} | settings
    log = folder / "start.log"
    process = await (start if forked else start_command)(command, cwd=folder, environment=environment, log=log)
    try:
        async with asyncio.timeout(LIMIT):
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert code == 1, log.read_text()
    return log.read_text()


@PROCESSES
async def test_a_node_of_a_redis_cluster_stops_the_start_with_one_line(
    short_path: Path, postgres_dsn: str, command: tuple[str, ...]
) -> None:
    async with redis_node(short_path, cluster_enabled="yes", cluster_port=str(free_port())) as node:
        output = await output_of_failed_start(short_path, *command, DATABASE_URL=postgres_dsn, REDIS_URL=node.dsn)
    assert output.count("\n") == 1, output
    assert "REDIS_URL: the server is a node of a Redis Cluster" in output


@PROCESSES
async def test_a_process_without_settings_names_the_first_missing_one(
    short_path: Path, command: tuple[str, ...]
) -> None:
    output = await output_of_failed_start(short_path, *command, forked=False)
    assert output.count("\n") == 1
    assert "DATABASE_URL (or DB_HOST) is not set" in output


WRONG = [
    ("backend serve", "REDIS_URL", "http://x"),
    ("executor", "REDIS_URL", "http://x"),
    ("backend serve", "HOST", "300.1.1.1"),
    ("backend serve", "HOST", "nowhere.invalid"),
    ("backend serve", "PORT", "taken"),
    ("executor", "EXECUTOR_PORT", "taken"),
    ("executor", "CHAT_SYSTEM_PROMPT", "/nonexistent/prompt.txt"),
    ("executor", "DOCS_DIR", "nowhere"),
    ("executor", "AGENT_TEMPLATES_DIR", "nowhere"),
    ("executor", "MCP_SERVERS_FILE", "nowhere.json"),
]


@pytest.mark.parametrize(("command", "name", "value"), WRONG)
async def test_a_wrong_setting_stops_the_start_with_one_line_that_names_it(
    short_path: Path, postgres_dsn: str, redis_dsn: str, command: str, name: str, value: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = {"DATABASE_URL": postgres_dsn, "REDIS_URL": redis_dsn, "CHAT_PROVIDER": "scripted"}
        settings[name] = value.replace("taken", str(listener.getsockname()[1]))
        output = await output_of_failed_start(short_path, *command.split(), **settings)
    assert output.count("\n") == 1, output
    assert output.split(": ")[1] == name


@PROCESSES
async def test_a_process_on_an_empty_database_asks_for_migrations(
    short_path: Path, command: tuple[str, ...], empty_postgres_dsn: str, redis_dsn: str
) -> None:
    output = await output_of_failed_start(short_path, *command, DATABASE_URL=empty_postgres_dsn, REDIS_URL=redis_dsn)
    assert output.count("\n") == 1
    assert "run `python -m backend migrate`" in output


@pytest.mark.parametrize("command", [("backend", "serve"), ("backend", "migrate"), ("executor",)], ids=" ".join)
async def test_an_unreachable_database_server_is_named_without_its_password(
    short_path: Path, command: tuple[str, ...], free_port: int
) -> None:
    dsn = f"postgresql://somebody:s3cr3t-pass@127.0.0.1:{free_port}/copilot"
    output = await output_of_failed_start(short_path, *command, DATABASE_URL=dsn)
    wanted = f"DATABASE_URL (or DB_HOST): PostgreSQL at 127.0.0.1:{free_port}: Connection refused\n"
    assert output.count("\n") == 1
    assert output.endswith(wanted)


async def test_a_database_with_too_few_migrations_is_refused_and_one_with_more_is_accepted(
    empty_postgres_dsn: str,
) -> None:
    await migrate(empty_postgres_dsn)
    async with Database.open(empty_postgres_dsn, size=2) as database:
        later_migration = (
            "INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at) VALUES ('1', '', 'x', now())"
        )
        await execute(empty_postgres_dsn, later_migration)
        await require_migrated(database)
        await execute(empty_postgres_dsn, "UPDATE _prisma_migrations SET rolled_back_at = now() WHERE id <> '1'")
        with pytest.raises(ConfigError, match="is behind by"):
            await require_migrated(database)
