"""The Postgres pool. Everything that means "Postgres cannot serve us now" leaves this file as Unavailable."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from backend.errors import ConfigError, InvalidUnicode, Unavailable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Row: TypeAlias = asyncpg.Record

CONNECT_TIMEOUT = 5.0
ACQUIRE_TIMEOUT = 5.0
COMMAND_TIMEOUT = 10.0
_SERVER_SETTINGS = {
    "application_name": "copilot",
    "timezone": "UTC",
    "jit": "off",  # our statements are short; planning with jit costs more than it gives
    "idle_in_transaction_session_timeout": "3s",  # a frozen process keeps its row locks no longer
}
_PRISMA_ONLY = frozenset(
    {"connection_limit", "connect_timeout", "pgbouncer", "pool_timeout", "schema", "socket_timeout", "sslaccept"}
)
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # serialization failure, deadlock
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, in the middle of a failover
)
_REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)


@dataclass(frozen=True, slots=True)
class Address:
    """A DSN taken apart: what asyncpg understands, and Prisma's `?schema=`."""

    dsn: str
    host: str | None
    schema: str | None

    @classmethod
    def parse(cls, dsn: str) -> Address:
        """Raises ConfigError unless it is a postgresql:// URL."""
        try:
            url = urlsplit(dsn)
            options = dict(parse_qsl(url.query, keep_blank_values=True))
        except ValueError:
            raise ConfigError("DATABASE_URL: not a URL") from None
        if url.scheme not in ("postgresql", "postgres"):
            raise ConfigError("DATABASE_URL: must begin with postgresql://")
        socket_folder = options.pop("host", None)  # libpq and Prisma: it wins over the host of the URL
        query = urlencode({name: value for name, value in options.items() if name not in _PRISMA_ONLY})
        return cls(urlunsplit(url._replace(query=query)), socket_folder, options.get("schema"))

    @property
    def settings(self) -> dict[str, str]:
        """What to ask of a connection to this address; the schema is where names are looked up."""
        if self.schema is None:
            return dict(_SERVER_SETTINGS)
        quoted = self.schema.replace('"', '""')
        return {**_SERVER_SETTINGS, "search_path": f'"{quoted}"'}

    def other_database(self, name: str) -> Address:
        """The same server, another database, no schema."""
        return Address(urlunsplit(urlsplit(self.dsn)._replace(path=f"/{name}")), self.host, None)

    @property
    def database(self) -> str:
        return urlsplit(self.dsn).path.lstrip("/")

    @property
    def where(self) -> str:
        """The server, for people; without the login."""
        place = self.host or urlsplit(self.dsn).netloc.rpartition("@")[2] or "the usual socket"
        return f"PostgreSQL at {place}"


class Database:
    """A pool of connections to Postgres that recovers by itself. Nothing is retried silently."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, *, size: int) -> AsyncIterator[Database]:
        """Connects once to see that it works. Raises ConfigError (address, password, database) or Unavailable."""
        address = Address.parse(dsn)
        with away_at_start(address), refusals_named(), absence_named():
            pool = await asyncpg.create_pool(
                address.dsn,
                host=address.host,
                min_size=0,  # else asyncpg fills a log with its tries while Postgres is away
                max_size=size,
                init=_teach_json,
                reset=_keep_as_it_is,
                timeout=CONNECT_TIMEOUT,
                command_timeout=COMMAND_TIMEOUT,
                server_settings=address.settings,
            )
        database = cls(pool)
        try:
            with away_at_start(address), refusals_named():
                await database.ping()
            yield database
        finally:
            await _close(pool)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection, each statement on its own. Only statements belong in the body. Raises Unavailable."""
        with absence_named():
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT) as connection:
                with _loss_named(connection):
                    yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction: committed when the body ends, rolled back if it raises. Raises Unavailable."""
        async with self.connection() as connection, connection.transaction(isolation="read_committed"):
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """For reading only: every statement of the body sees the same moment. Raises Unavailable."""
        async with self.connection() as c, c.transaction(isolation="repeatable_read", readonly=True):
            yield c

    async def ping(self) -> None:
        """Raises Unavailable when Postgres does not answer."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1")


async def _close(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    try:
        await asyncio.wait_for(pool.close(), COMMAND_TIMEOUT)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()


@contextmanager
def absence_named() -> Iterator[None]:
    """Turns what asyncpg raises while Postgres is away, and text that Postgres cannot hold, into our errors."""
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
    """Says which server is away, by which setting, and why: for whoever starts us, never for clients."""
    try:
        yield
    except Unavailable as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, TimeoutError):
            known = cause.errno is not None and cause.errno > 0
            why = os.strerror(cause.errno or 0) if known else cause.strerror or "it cannot be reached"
        else:
            why = str(cause) if isinstance(cause, asyncpg.PostgresError) else "it does not answer"
        raise Unavailable(f"DATABASE_URL (or DB_HOST): {address.where}: {why}") from error


@contextmanager
def refusals_named() -> Iterator[None]:
    """Turns a refused log-in, an unknown database or a URL that asyncpg cannot read into a ConfigError."""
    try:
        yield
    except _REFUSED as error:
        raise ConfigError(f"DATABASE_URL: {error}") from None
    except ValueError:  # what asyncpg says of the URL may quote a piece of the password
        raise ConfigError("DATABASE_URL: cannot be read; percent-encode special characters in it") from None


@contextmanager
def _loss_named(connection: PoolConnectionProxy[asyncpg.Record]) -> Iterator[None]:
    """asyncpg says InterfaceError both for our mistakes and for a connection that closed a moment ago; and
    InternalClientError for one that is about to close: Postgres said so while nobody asked it anything."""
    try:
        yield
    except asyncpg.InternalClientError as error:
        connection.terminate()
        raise Unavailable from error
    except asyncpg.InterfaceError as error:
        if _is_lost(connection):
            raise Unavailable from error
        raise


def _is_lost(connection: PoolConnectionProxy[asyncpg.Record]) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool takes a lost connection away from its borrower
        return True


async def _keep_as_it_is(connection: Connection) -> None:
    """Saves a round trip each time a connection is given back: nothing here changes a session outside a transaction,
    and what a transaction leaves open asyncpg rolls back by itself."""


async def _teach_json(connection: Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=_encode_json, decoder=orjson.loads)


def _encode_json(value: Any) -> str:
    """JSON text that Postgres takes: NUL and lone surrogates, which it refuses, become U+FFFD."""
    try:
        text = orjson.dumps(value)
    except TypeError:  # lone surrogates, integers over 64 bits
        return json.dumps(storable(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return orjson.dumps(storable(value)).decode() if b"\\u0000" in text else text.decode()


def containing(text: str) -> str:
    """The LIKE pattern of whatever holds this text, taken literally."""
    literal = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{literal}%"


def storable(value: Any) -> Any:
    """A copy of a JSON value with NUL and lone surrogates as U+FFFD. Recursive: the caller knows the depth."""
    match value:
        case str():
            return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
    return value
