"""PostgreSQL behind PgBouncer in transaction mode: each transaction may have another connection to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from backend.chat.store import executors
from backend.chat.store.sessions import create_session
from backend.errors import ConfigError
from backend.ids import new_session_id
from backend.migrating import migrate, read_migrations, require_migrated
from backend.postgres import Database
from tests.e2e.chat_api import converse, history_of, open_session, text_in
from tests.e2e.stack import Servers, open_stack
from tests.servers.pgbouncer import pooler
from tests.speed import limit

_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"  # noqa: E501


@pytest.fixture
async def pooled_dsn(empty_postgres_dsn: str, short_path: Path) -> AsyncIterator[str]:
    async with pooler(empty_postgres_dsn, short_path) as dsn:
        yield dsn


async def _locks(dsn: str) -> int:
    c = await asyncpg.connect(dsn, timeout=limit(20))
    try:
        return int(await c.fetchval(_LOCKS))
    finally:
        await c.close()


async def test_migrate_leaves_no_lock_behind(pooled_dsn: str, empty_postgres_dsn: str) -> None:
    async with asyncio.timeout(limit(60)):
        assert await migrate(pooled_dsn) == [migration.name for migration in read_migrations()]
        assert await _locks(empty_postgres_dsn) == 0
        assert await migrate(empty_postgres_dsn) == []


@pytest.mark.parametrize("options", ["", "&pgbouncer=true", "&pgbouncer=true&schema=other"])
async def test_every_transaction_has_its_settings_and_its_schema(pooled_dsn: str, options: str) -> None:
    dsn = pooled_dsn + options
    await migrate(dsn)
    schema = "other" if "schema" in options else "public"
    async with Database.open(dsn, size=10) as database, asyncio.timeout(limit(60)):
        await require_migrated(database)

        async def use(n: int) -> None:
            session = new_session_id()
            async with database.transaction() as c:
                await create_session(c, session, None, {"n": n})
            async with database.connection() as c:
                assert await c.fetchval("SHOW jit") == "off"
                assert await c.fetchval("SHOW idle_in_transaction_session_timeout") == "3s"
                assert await c.fetchval("SELECT current_schema()") == schema
                assert await c.fetchval(f"SELECT count(*) FROM {schema}.sessions WHERE id = $1", session) == 1
            async with database.snapshot() as c:
                assert await c.fetchval("SELECT metadata FROM sessions WHERE id = $1", session) == {"n": n}

        await asyncio.gather(*(use(n) for n in range(30)))


async def test_the_lock_of_the_sweep_ends_with_its_transaction(pooled_dsn: str, empty_postgres_dsn: str) -> None:
    async with (
        Database.open(pooled_dsn, size=2) as database,
        Database.open(pooled_dsn, size=2) as other,
        asyncio.timeout(limit(30)),
    ):
        async with (
            database.connection() as mine,
            executors.sweeping(mine) as first,
            other.connection() as theirs,
            executors.sweeping(theirs) as second,
        ):
            assert (first, second) == (True, False)
        assert await _locks(empty_postgres_dsn) == 0
        async with other.connection() as theirs, executors.sweeping(theirs) as second:
            assert second


async def test_an_option_that_the_pooler_does_not_know_is_a_wrong_setting(pooled_dsn: str) -> None:
    with pytest.raises(ConfigError, match="unsupported startup parameter"):
        async with Database.open(f"{pooled_dsn}&search_mode=fast", size=2):
            pass


async def test_a_whole_turn_runs_over_a_pooler(pooled_dsn: str, redis_dsn: str, tmp_path: Path) -> None:
    await migrate(pooled_dsn)
    async with open_stack(Servers(pooled_dsn, redis_dsn), tmp_path) as stack, stack.client() as http:
        session = await open_session(http)
        await converse(http, session, "/say Hello there", '/tool add_understanding {"user_name":"Ada"}')
        assert text_in((await history_of(http, session))[1]) == "Hello there"
