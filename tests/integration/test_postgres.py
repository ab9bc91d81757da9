"""The pool: what happens to it when Postgres goes away, and what text and JSON go through it."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest

from backend.chat.models import Json
from backend.chat.store.sessions import create_session, set_title
from backend.errors import ConfigError, InvalidUnicode, Unavailable
from backend.ids import new_session_id
from backend.postgres import Connection, Database
from backend.postgres_address import Address
from tests.integration.catalog import execute
from tests.servers.postgres import PostgresNode
from tests.speed import limit


async def _terminate_all(dsn: str, application: str) -> None:
    statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
    await execute(dsn, f"{statement} '{application}' AND datname = current_database()")


async def _end_all_and_wait(dsn: str) -> None:
    await _terminate_all(dsn, "copilot")
    c = await asyncpg.connect(dsn, timeout=limit(20))
    ours = "application_name = 'copilot' AND datname = current_database()"
    while await c.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {ours}"):
        await asyncio.sleep(0.02)
    await c.close()


async def _answers_again(database: Database) -> None:
    async with asyncio.timeout(limit(30)):
        while True:
            with contextlib.suppress(Unavailable):
                return await database.ping()
            await asyncio.sleep(0.05)


async def test_a_pool_recovers_when_its_connections_are_ended(empty_postgres_dsn: str) -> None:
    async with Database.open(empty_postgres_dsn, size=3) as database:

        async def loses_its_connection() -> None:
            async with database.transaction() as c:
                await _terminate_all(empty_postgres_dsn, "copilot")
                await c.execute("SELECT 1")

        for _ in range(5):
            with pytest.raises(Unavailable):
                await loses_its_connection()
            await _answers_again(database)


async def test_a_connection_that_is_ended_is_unavailable_whenever_it_is_used(empty_postgres_dsn: str) -> None:
    """The last words of the server are read in one round of the event loop, and its close in a later one."""
    async with Database.open(empty_postgres_dsn, size=10) as database, asyncio.timeout(limit(30)):
        in_hand, ended = asyncio.Barrier(10), asyncio.Event()

        async def use_after(rounds: int) -> None:
            async with database.connection() as c:
                await in_hand.wait()
                await ended.wait()
                for _ in range(rounds):
                    await asyncio.sleep(0)
                await c.execute("SELECT 1")

        users = [asyncio.create_task(use_after(rounds)) for rounds in range(9)]
        await in_hand.wait()
        with ThreadPoolExecutor() as elsewhere:  # this loop stands still meanwhile
            elsewhere.submit(asyncio.run, _end_all_and_wait(empty_postgres_dsn)).result(limit(20))
        ended.set()
        ends = await asyncio.gather(*users, return_exceptions=True)
        assert [type(end) for end in ends] == [Unavailable] * 9
        await _answers_again(database)


async def test_a_pool_recovers_when_the_server_starts_again(private_postgres: PostgresNode) -> None:
    async with Database.open(private_postgres.dsn, size=2) as database:
        await database.ping()
        await private_postgres.kill()
        with pytest.raises(Unavailable):
            await database.ping()
        await private_postgres.start()
        await _answers_again(database)


async def test_a_server_that_is_away_is_unavailable(free_port: int) -> None:
    with pytest.raises(Unavailable):
        async with Database.open(f"postgresql://postgres@127.0.0.1:{free_port}/copilot", size=2):
            pass


async def test_a_pool_that_is_used_up_is_unavailable_and_waits_no_longer(empty_postgres_dsn: str) -> None:
    async with Database.open(empty_postgres_dsn, size=2) as database, asyncio.timeout(limit(30)):
        async with database.connection(), database.connection():
            with pytest.raises(Unavailable):
                await database.ping()
        await database.ping()


async def test_a_deadlock_is_unavailable_to_one_and_the_other_goes_on(database: Database, c: Connection) -> None:
    ids = [(await create_session(c, new_session_id(), None, {})).session.id for _ in range(2)]
    locked = asyncio.Barrier(2)

    async def lock(first: str, second: str) -> None:
        async with database.transaction() as mine:
            await mine.execute("UPDATE sessions SET title = 'a' WHERE id = $1", first)
            await locked.wait()
            await mine.execute("UPDATE sessions SET title = 'b' WHERE id = $1", second)

    async with asyncio.timeout(limit(30)):
        ends = await asyncio.gather(lock(*ids), lock(*reversed(ids)), return_exceptions=True)
    assert [type(end) for end in ends if end is not None] == [Unavailable]


async def test_a_transaction_that_raises_leaves_nothing(database: Database, c: Connection) -> None:
    session_id = new_session_id()

    async def fail() -> None:
        async with database.transaction() as mine:
            await create_session(mine, session_id, None, {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await c.fetchval("SELECT count(*) FROM sessions WHERE id = $1", session_id) == 0


_SLEEPS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND query = 'SELECT pg_sleep(30)'"""


async def test_a_transaction_that_is_cancelled_leaves_nothing_and_gives_its_connection_back(
    empty_postgres_dsn: str,
) -> None:
    async with Database.open(empty_postgres_dsn, size=2) as database, asyncio.timeout(limit(30)):
        await execute(empty_postgres_dsn, "CREATE TABLE things (n INTEGER)")
        inserted = asyncio.Event()

        async def write() -> None:
            async with database.transaction() as c:
                await c.execute("INSERT INTO things VALUES (1)")
                inserted.set()
                await c.execute("SELECT pg_sleep(30)")

        for _ in range(3):
            inserted.clear()
            writing = asyncio.create_task(write())
            await inserted.wait()
            async with database.connection() as c:  # Postgres ignores a cancel that comes before its statement
                while not await c.fetchval(_SLEEPS):
                    await asyncio.sleep(0.01)  # between two checks of a bounded wait
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
        async with database.connection() as c:
            assert await c.fetchval("SELECT count(*) FROM things") == 0


async def test_a_transaction_that_stands_still_loses_its_row_lock_before_others_give_up(
    database: Database, c: Connection
) -> None:
    """A process does that if it is frozen between two statements."""
    session = new_session_id()
    await create_session(c, session, None, {})
    others_may, others_have = asyncio.Event(), asyncio.Event()

    async def stands_still() -> None:
        async with database.transaction() as still:
            await set_title(still, session, "mine")
            others_may.set()
            await others_have.wait()
            await set_title(still, session, "mine again")

    frozen = asyncio.create_task(stands_still())
    await others_may.wait()
    async with database.transaction() as other:
        await set_title(other, session, "theirs")
    others_have.set()
    with pytest.raises(Unavailable):
        await frozen


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
async def test_text_that_postgres_cannot_hold_is_named(database: Database, text: str) -> None:
    with pytest.raises(InvalidUnicode):
        async with database.connection() as c:
            await set_title(c, new_session_id(), text)


async def test_mistakes_in_our_sql_are_not_reported_as_unavailable(database: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.connection() as c:
            await c.execute("SELECT 1 FROM nowhere")
    with pytest.raises(asyncpg.DataError):
        async with database.connection() as c:
            await c.fetchval("SELECT $1::int", "one")


@pytest.mark.parametrize("kind", ["json", "jsonb"])
async def test_json_is_read_as_it_was_written(c: Connection, kind: str) -> None:
    value: Json = {"a": [1, 2.5, None, True, '\u2028\x7f"\\', {}], "ü": {"b": [[]]}}
    assert await c.fetchval(f"SELECT $1::{kind}", value) == value
    assert await c.fetchval(f"SELECT $1::{kind}", None) is None


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "mysql://x/y",
        "http://[::1",
        "postgresql+asyncpg://localhost/x",
        "postgresql://localhost:port/x",
        "postgresql://localhost/x?sslmode=maybe",
    ],
)
async def test_an_address_that_is_not_postgres_is_a_wrong_setting(dsn: str) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        async with Database.open(dsn, size=2):
            pass


async def test_a_database_that_does_not_exist_is_a_wrong_setting(empty_postgres_dsn: str) -> None:
    missing = Address.parse(empty_postgres_dsn).other_database("copilot_nowhere").dsn
    with pytest.raises(ConfigError, match="copilot_nowhere"):
        async with Database.open(missing, size=2):
            pass
