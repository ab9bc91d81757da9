"""PostgreSQL whose address leads to a standby for a moment, or which lets nobody in, while processes run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from backend.errors import ConfigError, Unavailable
from backend.logs import why_away
from backend.postgres import Database
from tests.integration.catalog import execute
from tests.servers.postgres import PostgresNode, standby_node
from tests.servers.proxy import FaultProxy, Mode
from tests.speed import limit


@pytest.fixture
async def standby(cluster: Path, short_path: Path) -> AsyncIterator[str]:
    async with standby_node(cluster, short_path / "standby") as node:
        yield node.dsn


async def _works_again(database: Database, work: Callable[[Database], Awaitable[None]]) -> None:
    async with asyncio.timeout(limit(30)):
        while True:
            with suppress(Unavailable):
                return await work(database)
            await asyncio.sleep(0.05)  # between two tries of a bounded wait


async def _write(database: Database) -> None:
    async with database.transaction() as c:
        await c.execute("INSERT INTO things VALUES (1)")


@pytest.mark.parametrize("options", ["", "&target_session_attrs=read-write"])
async def test_no_connection_to_a_standby_is_kept(private_postgres: PostgresNode, standby: str, options: str) -> None:
    await execute(private_postgres.dsn, "CREATE TABLE things (n INTEGER)")
    async with (
        FaultProxy.before(private_postgres.dsn) as address,
        Database.open(address.dsn + options, size=3) as database,
    ):
        await _write(database)
        address.lead_to(standby)
        await address.switch(Mode.RESET)
        await address.switch(Mode.PASS)
        for _ in range(5):
            with pytest.raises(Unavailable):
                await _write(database)
            with pytest.raises(Unavailable):
                await database.ping()
        address.lead_to(private_postgres.dsn)
        await _works_again(database, _write)
        for _ in range(5):
            await _write(database)


async def test_a_server_that_turns_read_only_is_not_ready_until_it_takes_writes_again(
    private_postgres: PostgresNode,
) -> None:
    await execute(private_postgres.dsn, "CREATE TABLE things (n INTEGER)")
    async with Database.open(private_postgres.dsn, size=3) as database:
        await _write(database)
        await _set_read_only(private_postgres.dsn, "on")
        with pytest.raises(Unavailable) as refused:
            await _until_refused(database)
        assert "read-only" in why_away(refused.value.__cause__)
        with pytest.raises(Unavailable):
            await database.ping()
        async with database.snapshot() as c:
            assert await c.fetchval("SELECT count(*) FROM things") >= 1
        await _set_read_only(private_postgres.dsn, "off")
        await _works_again(database, _write)
        await _works_again(database, Database.ping)


async def _set_read_only(dsn: str, state: str) -> None:
    await execute(dsn, f"ALTER SYSTEM SET default_transaction_read_only = {state}")
    await execute(dsn, "SELECT pg_reload_conf()")


async def _until_refused(database: Database) -> None:
    async with asyncio.timeout(limit(20)):
        while True:
            await _write(database)


async def test_a_login_that_is_refused_while_a_process_runs_is_unavailable(
    private_postgres: PostgresNode, caplog: pytest.LogCaptureFixture
) -> None:
    await execute(private_postgres.dsn, "CREATE ROLE app LOGIN")
    dsn = private_postgres.dsn.replace("postgres@", "app@")
    async with Database.open(dsn, size=3) as database:
        await execute(private_postgres.dsn, "ALTER ROLE app NOLOGIN")
        await execute(
            private_postgres.dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
        )
        for _ in range(3):
            with pytest.raises(Unavailable):
                await database.ping()
        assert "not permitted to log in" in caplog.text or any(
            "not permitted to log in" in str(getattr(record, "error", "")) for record in caplog.records
        )
        await execute(private_postgres.dsn, "ALTER ROLE app LOGIN")
        await _works_again(database, Database.ping)
    await execute(private_postgres.dsn, "ALTER ROLE app NOLOGIN")
    with pytest.raises(ConfigError, match="not permitted to log in"):  # at the start it is a wrong setting
        async with Database.open(dsn, size=3):
            pass


@pytest.mark.parametrize(
    "options",
    [
        "sslmode=prefer&channel_binding=require",  # Neon; this server has no TLS
        "pgbouncer=true&connection_limit=1",  # Supabase, Prisma
        "sslmode=disable&supa=base-pooler.x",
        "statement_cache_size=0", "prepared_statement_cache_size=0",
        "gssencmode=disable", "keepalives_idle=30", "load_balance_hosts=random", "fallback_application_name=x",
        "uselibpqcompat=true", "target_session_attrs=primary", "connect_timeout=10", "schema=public",
        "options=-c%20statement_timeout%3D5000", "client_encoding=utf8", "max_protocol_version=latest",
    ],
)  # fmt: skip
async def test_connection_strings_as_services_give_them_work(empty_postgres_dsn: str, options: str) -> None:
    async with Database.open(_with(empty_postgres_dsn, options), size=2) as database:
        await database.ping()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("require_auth=scram-sha-256", "require_auth is not supported"),
        ("gssencmode=require", "gssencmode is not supported"),
        ("sslmode=verify-full", "needs sslrootcert"),
        ("sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
        ("sslmode=perhaps", "`sslmode`"),
        ("statement_cache_size=many", "must be a number"),
        ("no_such_option=1", "no_such_option"),
        ("target_session_attrs=best", "target_session_attrs"),
    ],
)
async def test_connection_strings_that_cannot_be_met_are_refused_by_one_line(
    empty_postgres_dsn: str, options: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=r"^DATABASE_URL: ") as refused:
        async with Database.open(_with(empty_postgres_dsn, options), size=2):
            pass
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_server_without_tls_is_told_as_that(private_postgres: PostgresNode) -> None:
    async with FaultProxy.before(private_postgres.dsn) as address:
        dsn = address.dsn.replace("sslmode=disable", "sslmode=no-verify")
        with pytest.raises(Unavailable, match="rejected SSL upgrade"):
            async with Database.open(dsn, size=2):
                pass


def _with(dsn: str, options: str) -> str:
    return f"{dsn}{'&' if '?' in dsn else '?'}{options}"
