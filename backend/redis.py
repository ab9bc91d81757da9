"""Redis (or Valkey): how its connections are made. Keys are in `backend.chat.keys`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, OutOfMemoryError, ReadOnlyError, TimeoutError

from backend.errors import Unavailable

ANSWER_LIMIT = 5.0
"""Seconds until a server that does not answer counts as away."""
RETRIES = 2
_AWAY = (
    ConnectionError,
    TimeoutError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    OSError,
    asyncio.TimeoutError,
)


@asynccontextmanager
async def open_redis(dsn: str, *, pool_size: int) -> AsyncIterator[Redis]:
    """A client for commands that answer at once. It connects on first use; whoever finds no free connection waits.

    A command whose answer is lost is sent again up to RETRIES times: it must bear being done twice."""
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), RETRIES)
    async with _client(dsn, pool_size, ANSWER_LIMIT, retry) as redis:
        yield redis


@asynccontextmanager
async def open_waiting_redis(dsn: str, *, longest_wait: float, pool_size: int = 8) -> AsyncIterator[Redis]:
    """A client for commands that wait up to `longest_wait` seconds in the server, and pub/sub. Nothing is retried."""
    async with _client(dsn, pool_size, longest_wait + ANSWER_LIMIT, Retry(NoBackoff(), 0)) as redis:
        yield redis


class _Mended(AbstractConnection):
    """Mends three things about redis-py's connections. Each client has a subclass of its own.

    redis-py opens a connection even for a client that is closed or being closed; nobody would ever close that one.
    It sends inside `asyncio.wait_for`, which before Python 3.12 swallows a cancel that comes as it ends: a job that
    was cancelled would go on for ever. And uvloop's word for a connection that was reset a moment ago is RuntimeError,
    which nobody would take for a server that is away.
    """

    client_closed = False

    async def _connect(self) -> None:
        if not self.client_closed:
            await super()._connect()  # type: ignore[no-untyped-call,safe-super]
        if self.client_closed:
            await self.disconnect(nowait=True)
            raise ConnectionError("the client is closed")

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        job = asyncio.current_task()
        before = job.cancelling() if job is not None else 0
        try:
            await super().send_packed_command(*args, **kwargs)
        except RuntimeError as error:
            if "the handler is closed" not in str(error):
                raise
            raise ConnectionError("the connection was lost") from error
        if job is not None and job.cancelling() > before:
            await self.disconnect(nowait=True)  # its reply will not be read
            raise asyncio.CancelledError


@asynccontextmanager
async def _client(dsn: str, pool_size: int, timeout: float, retry: Retry) -> AsyncIterator[Redis]:
    pool = BlockingConnectionPool.from_url(
        dsn,
        max_connections=pool_size,
        timeout=ANSWER_LIMIT,
        socket_timeout=timeout,
        socket_connect_timeout=ANSWER_LIMIT,
        retry=retry,
    )
    made: type[AbstractConnection] = pool.connection_class
    ours: type[_Mended] = type(made.__name__, (_Mended, made), {})
    pool.connection_class = ours
    redis = Redis.from_pool(pool)
    try:
        yield redis
    finally:
        ours.client_closed = True
        await asyncio.shield(redis.aclose())  # a cancel would lose each connection whose closing has not begun


@asynccontextmanager
async def answered(limit: float = ANSWER_LIMIT) -> AsyncIterator[None]:
    """A server that is away inside, cannot write, or does not answer in time, becomes Unavailable."""
    try:
        async with asyncio.timeout(limit):
            yield
    except _AWAY as error:
        raise Unavailable from error
