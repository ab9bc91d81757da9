"""The Postgres pool. Every error that means "Postgres is unavailable now" leaves this file as Unavailable."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, TypeAlias

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from backend.errors import ConfigError, InvalidUnicode, Unavailable
from backend.logs import Trouble, why_away
from backend.postgres_address import Address

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Row: TypeAlias = asyncpg.Record
Isolation = Literal["read_committed", "repeatable_read"]

CONNECT_TIMEOUT = 5.0
ACQUIRE_TIMEOUT = 5.0
COMMAND_TIMEOUT = 10.0
"""Seconds to connect, to get a connection from the pool, and for one statement."""
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # serialization failure, deadlock
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby during a failover
)
_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedObjectError,  # an option of the URL that is no setting of the server
    asyncpg.CantChangeRuntimeParamError,
    asyncpg.InvalidParameterValueError,
)
"""Errors of a new connection that an operator has to correct."""
_POOLER = (
    asyncpg.InternalServerError,  # how poolers report errors of their own
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
"""Errors of a statement. Behind a pooler they mean that it ran on another server connection than the one before."""
_UNKNOWN_TO_POOLER = "unsupported startup parameter"
_SAFE_TO_TELL = ("`sslmode`", "`sslnegotiation`", "direct TLS", "root certificate", "target_session_attrs")
"""Beginnings of the driver's messages about a URL that quote no part of a login."""
logger = logging.getLogger(__name__)


_CLOCK = "SELECT current_setting('transaction_read_only'), extract(epoch FROM clock_timestamp())::float8"


class Database:
    """A pool of connections to Postgres. It recovers by itself, but never repeats a statement.

    `on_wait` gets the seconds for which each caller waited for a connection, even of callers that got none.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], address: Address) -> None:
        self._pool = pool
        self._address = address
        self._running = False
        self.on_wait: Callable[[float], None] | None = None
        self._trouble = Trouble(
            logger, "PostgreSQL gives no connection", setting="DATABASE_URL (or DB_HOST)", at=address.where
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, *, size: int) -> AsyncIterator[Database]:
        """Opens the pool and tests one connection. Raises ConfigError (address, password, database) or Unavailable."""
        address = Address.parse(dsn)
        if address.weaker is not None:
            logger.warning("an option of DATABASE_URL is not supported and ignored", extra={"option": address.weaker})
        database = cls(await _create_pool(address, size), address)
        try:
            with away_at_start(address), refusals_named():
                try:
                    await database.ping()
                except Unavailable as error:
                    if _UNKNOWN_TO_POOLER not in str(error.__cause__):
                        raise
                    database = await database._reopen_over_pooler(size)
            database._running = True
            yield database
        finally:
            await _close(database._pool)

    async def _reopen_over_pooler(self, size: int) -> Database:
        """Replaces the pool by one for a pooler, which refuses the settings of a connection to a server."""
        logger.info("a pooler stands before PostgreSQL", extra={"at": self._address.where})
        await _close(self._pool)
        address = self._address.over_a_pooler()
        database = Database(await _create_pool(address, size), address)
        try:
            await database.ping()
        except BaseException:
            await _close(database._pool)
            raise
        return database

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Gives a connection without a transaction. Only statements belong in the body. Raises Unavailable.

        Over a pooler, the body is one transaction: otherwise each statement could meet another server connection.
        """
        async with self._session("read_committed" if self._address.pooled else None) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Opens a READ COMMITTED transaction, committed at the end of the body or rolled back. Raises Unavailable."""
        async with self._session("read_committed") as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Opens a read-only transaction in which all statements see the same state. Raises Unavailable."""
        async with self._session("repeatable_read", readonly=True) as connection:
            yield connection

    async def ping(self) -> None:
        """Raises Unavailable if Postgres does not answer, or takes no writes."""
        async with self.connection() as connection:
            if await connection.fetchval("SHOW transaction_read_only") == "on":
                raise asyncpg.ReadOnlySQLTransactionError("the server is read-only")

    async def clock(self) -> float:
        """Returns the time of Postgres, in seconds since 1970. Raises as `ping` does."""
        async with self.connection() as connection:
            read_only, seconds = await connection.fetchrow(_CLOCK) or ("on", 0.0)
            if read_only == "on":
                raise asyncpg.ReadOnlySQLTransactionError("the server is read-only")
        return float(seconds)

    @asynccontextmanager
    async def _session(self, isolation: Isolation | None, *, readonly: bool = False) -> AsyncIterator[Connection]:
        with translated_errors():
            connection = await self._acquire()
            try:
                with _loss_named(connection, pooled=self._address.pooled):
                    if isolation is None:
                        yield connection
                    else:
                        async with connection.transaction(isolation=isolation, readonly=readonly):
                            if self._address.pooled:
                                await connection.execute(self._address.local_settings)
                            yield connection
            except asyncpg.ReadOnlySQLTransactionError as error:
                if not readonly:  # the others may be connected to the same server, which was the master once
                    self._trouble.met(why_away(error))
                    await self._pool.expire_connections()
                raise
            finally:
                await self._pool.release(connection)

    async def _acquire(self) -> PoolConnectionProxy[asyncpg.Record]:
        """Returns a connection. Raises Unavailable, with the cause, whatever the reason why none can be opened.

        A login that is refused while a process runs may be right again in a moment: a password that is being changed, a
        failover. So it must not end the process, as it does at the start.
        """
        began = time.monotonic()
        try:
            with refusal_named():
                connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT)
        except Unavailable as error:
            if self._running:  # at the start, the error that ends the process says so
                self._trouble.met(why_away(error.__cause__))
            raise
        finally:
            if self.on_wait is not None:
                self.on_wait(time.monotonic() - began)
        self._trouble.over()
        return connection


async def _create_pool(address: Address, size: int) -> asyncpg.Pool[asyncpg.Record]:
    """Creates a pool, which does not connect yet. Raises ConfigError."""
    with refusals_named():
        return await asyncpg.create_pool(
            address.dsn,
            min_size=0,  # otherwise asyncpg logs every failed attempt while Postgres is unavailable
            max_size=size,
            init=_prepare_over_pooler if address.pooled else _prepare,
            reset=_skip_reset,
            timeout=CONNECT_TIMEOUT,
            command_timeout=COMMAND_TIMEOUT,
            server_settings=address.server_settings,
            **address.driver_options,
        )


async def _close(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    try:
        await asyncio.wait_for(pool.close(), COMMAND_TIMEOUT)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()


@contextmanager
def refusal_named() -> Iterator[None]:
    """Turns every error of opening a connection into Unavailable, with the error as its cause."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InternalClientError, OSError, TimeoutError, ValueError) as error:
        raise Unavailable from error


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns errors of asyncpg into Unavailable, or into InvalidUnicode if Postgres cannot store a text."""
    try:
        yield
    except _AWAY as error:
        raise Unavailable from error
    except (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError) as error:
        raise InvalidUnicode from error
    except asyncpg.DataError as error:
        if isinstance(error.__cause__, UnicodeEncodeError):
            raise InvalidUnicode from error
        raise


@contextmanager
def away_at_start(address: Address) -> Iterator[None]:
    """Adds the server, its setting and the reason to Unavailable: for the operator at the start, never for clients."""
    try:
        yield
    except Unavailable as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, TimeoutError):
            known = cause.errno is not None and cause.errno > 0
            reason = os.strerror(cause.errno or 0) if known else cause.strerror or str(cause) or "it cannot be reached"
        elif isinstance(cause, asyncpg.PostgresError | asyncpg.InternalClientError):
            reason = str(cause)
        else:
            reason = "it does not answer"
        raise Unavailable(f"DATABASE_URL (or DB_HOST): {address.where}: {reason}") from error


@contextmanager
def refusals_named() -> Iterator[None]:
    """Turns a refused login, an unknown database, or a URL that asyncpg or Postgres cannot read, into ConfigError."""
    try:
        yield
    except Unavailable as error:
        cause = error.__cause__
        if not isinstance(cause, (*_REFUSED, ValueError)) and _UNKNOWN_TO_POOLER not in str(cause):
            raise
        raise _refusal(cause) from None
    except (*_REFUSED, ValueError) as error:
        raise _refusal(error) from None


def _refusal(error: BaseException | None) -> ConfigError:
    said = str(error)
    if isinstance(error, asyncpg.PostgresError) or said.startswith(_SAFE_TO_TELL):
        return ConfigError(f"DATABASE_URL: {said.partition(chr(10))[0]}")
    return ConfigError("DATABASE_URL: cannot be read; percent-encode special characters in it")


@contextmanager
def _loss_named(connection: PoolConnectionProxy[asyncpg.Record], *, pooled: bool) -> Iterator[None]:
    """Turns the errors of a lost connection into Unavailable, and closes a connection that must not be used again.

    asyncpg raises InterfaceError for a connection that has just closed, but also for mistakes of the caller. It raises
    InternalClientError for a connection that Postgres announced to close while it was idle. A connection to a read-only
    server is closed, since the address may lead to another server by now.
    """
    try:
        yield
    except asyncpg.ReadOnlySQLTransactionError:
        connection.terminate()
        raise
    except asyncpg.InternalClientError as error:
        connection.terminate()
        raise Unavailable from error
    except _POOLER as error:
        if not pooled:
            raise
        connection.terminate()
        raise Unavailable from error
    except asyncpg.InterfaceError as error:
        if _is_lost(connection):
            raise Unavailable from error
        raise


def _is_lost(connection: PoolConnectionProxy[asyncpg.Record]) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken back the lost connection
        return True


async def _skip_reset(connection: Connection) -> None:
    """Does nothing, which saves a round trip each time a connection is returned.

    No code here changes a session outside a transaction, and asyncpg itself rolls back an open transaction.
    """


async def _prepare(connection: Connection) -> None:
    """Prepares a new connection. Raises ReadOnlySQLTransactionError if its server is a standby, which PostgreSQL says
    in its greeting since version 14.
    """
    if getattr(connection.get_settings(), "in_hot_standby", "off") == "on":
        raise asyncpg.ReadOnlySQLTransactionError("the server is a standby")
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=_encode_json, decoder=orjson.loads)


async def _prepare_over_pooler(connection: Connection) -> None:
    async with connection.transaction():
        await _prepare(connection)


def _encode_json(value: Any) -> str:
    """Returns JSON text that Postgres accepts: NUL and lone surrogates, which it rejects, become U+FFFD."""
    try:
        text = orjson.dumps(value)
    except TypeError:  # lone surrogates, integers over 64 bits
        return json.dumps(storable(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return orjson.dumps(storable(value)).decode() if b"\\u0000" in text else text.decode()


def containing(text: str) -> str:
    """Returns the LIKE pattern that matches any string that contains `text` literally."""
    literal = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{literal}%"


def storable(value: Any) -> Any:
    """Copies a JSON value, with NUL and lone surrogates as U+FFFD. It recurses, so the caller must limit the depth."""
    match value:
        case str():
            return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
    return value
