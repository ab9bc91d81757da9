"""Clients of Redis (or Valkey). The keys are in `backend.chat.keys`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from backend.errors import ConfigError, Unavailable
from backend.logs import why_away
from backend.redis_address import Place, parse_redis_url, place_name, place_of_redis
from backend.redis_cluster import SUSPICIOUS_AFTER, ClusterRedis
from backend.redis_moves import CLUSTER, ConnectionGroup, group_at, refusal_of
from backend.redis_sentinel import master_finder
from backend.redis_slots import NO_CLUSTER, SlotFinder, slot_finder

ANSWER_LIMIT = 5.0
"""Seconds until a server that does not answer counts as unavailable."""
RETRIES = 2
START_LIMIT = 2.0
"""Seconds in which a server may say at the start that it is a node of a cluster."""
_NOT_THE_MASTER = re.compile(r"(?:^|-)(?:READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|NOREPLICAS|UNBLOCKED)\b")
"""The errors of a server that another one may have replaced. A server before version 7 puts the code of a script's
error in the middle, after a hyphen."""
_MISCONF = re.compile(r"(?:^|-)MISCONF\b")


class NotTheMaster(ConnectionError):
    """The server does not take writes now: a replica, a server that starts, or a master that has lost its replicas.

    Also raised for a node of a cluster if the URL does not name one: it takes only the keys of its own slots.

    The connection is closed, because the address may lead to another server by now.
    """


class WritesRefused(ResponseError):
    """The server takes no writes, because it cannot save them (MISCONF), for example on a full disk."""


_AWAY = (
    ConnectionError,
    TimeoutError,
    OutOfMemoryError,
    WritesRefused,
    OSError,
    asyncio.TimeoutError,
)


@asynccontextmanager
async def open_redis(dsn: str, *, pool_size: int) -> AsyncIterator[Redis]:
    """Opens a client for commands that answer at once. It connects on first use; callers wait for a free connection.

    Raises ConfigError if the URL cannot be used. A connection whose server turns out not to be the master is opened
    again. A command whose answer is lost is sent again up to RETRIES times, so it must be safe to run it twice. In a
    cluster, `pool_size` is that of each master.
    """
    async with _client(dsn, pool_size, ANSWER_LIMIT, RETRIES) as redis:
        yield redis


@asynccontextmanager
async def open_waiting_redis(dsn: str, *, longest_wait: float, pool_size: int = 8) -> AsyncIterator[Redis]:
    """Opens a client for pub/sub, and for commands that block up to `longest_wait` seconds. It retries nothing."""
    async with _client(dsn, pool_size, longest_wait + ANSWER_LIMIT, 0) as redis:
        yield redis


class Finder(Protocol):
    """Finds the server for each new connection, if the URL does not name it."""

    async def find(self) -> Place:
        """Returns a master. Raises NoMaster."""


def finder_of(dsn: str) -> Finder | None:
    """Returns the finder of a URL with Sentinels, or with nodes of a cluster. None if it names a server."""
    return master_finder(dsn) or slot_finder(dsn)


class _Mended(AbstractConnection):
    """A connection with faults corrected. Each client has its own subclass.

    - redis-py opens a connection even for a client that is closed or being closed, and never closes that connection.
    - It sends inside `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes as it ends, so that a
      cancelled job would never end.
    - uvloop raises RuntimeError for a connection that was just reset, which does not look like a lost connection.
    - It keeps a connection to a server that was demoted, and hides the code of an error.
    - Its Sentinel pool is a second kind of pool, without a limit of waiting. Here each connection asks for its master.
    """

    client_closed = False
    group: ConnectionGroup
    finder: Finder | None
    in_cluster: bool
    _greets = False

    def cut(self) -> None:
        """Closes the connection as if the server had reset it."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        self._greets = True
        try:
            await super().on_connect_check_health(check_health)
        finally:
            self._greets = False
        self.group.add(self)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            response = await super().read_response(*args, **kwargs)
        except (ResponseError, BusyLoadingError) as error:
            words = _with_code(error)
            if _NOT_THE_MASTER.search(words):
                await self.disconnect(nowait=True)
                self.group.note_refusal()
                raise NotTheMaster(words) from None
            if _MISCONF.search(words):
                raise WritesRefused(words) from None
            raise
        if self._greets and (refusal := refusal_of(response, in_cluster=self.in_cluster)) is not None:
            await self.disconnect(nowait=True)
            raise NotTheMaster(refusal)
        return response

    async def _connect(self) -> None:
        if not self.client_closed:
            if self.finder is not None:
                self.host, self.port = await self.finder.find()
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


def _with_code(error: RedisError) -> str:
    """Returns the words of an error as the server sent them. Puts back a code that redis-py has cut off."""
    words, code = str(error), error.status_code
    if code and not words.startswith(code):
        words = f"{code} {words}"
        error.args = (words,)
    return words


@asynccontextmanager
async def _client(dsn: str, pool_size: int, timeout: float, retries: int) -> AsyncIterator[Redis]:
    finder = slot_finder(dsn)
    if finder is None:
        redis = Redis.from_pool(_pool(dsn, pool_size, timeout, retries))
    else:
        redis = _cluster_client(finder, dsn, pool_size, timeout, retries)
    try:
        yield redis
    finally:
        await _close(redis)


def _cluster_client(finder: SlotFinder, dsn: str, pool_size: int, timeout: float, retries: int) -> ClusterRedis:
    def open_node(place: Place) -> Redis:
        return Redis.from_pool(_pool(dsn, pool_size, timeout, 0, place))  # another node may have to be tried instead

    patience = timeout - ANSWER_LIMIT + SUSPICIOUS_AFTER  # a read may wait as long as it likes in the server
    anywhere = _pool(dsn, pool_size, timeout, retries)
    return ClusterRedis(finder, anywhere, open_node, _close, retries=retries, patience=patience)


def _pool(dsn: str, size: int, timeout: float, retries: int, place: Place | None = None) -> BlockingConnectionPool:
    """Makes a pool of connections to one node of a cluster, or to where the URL leads."""
    address = parse_redis_url(dsn)
    made: type[AbstractConnection] = address.pop("connection_class", Connection)
    if place is not None:
        address |= {"host": place[0], "port": place[1]}
    shared = {
        "group": group_at(place_of_redis(dsn) if place is None else place_name(*place)),
        "finder": finder_of(dsn) if place is None else None,
        "in_cluster": slot_finder(dsn) is not None,
    }
    own_class: type[_Mended] = type(made.__name__, (_Mended, made), shared)
    backoff = ExponentialWithJitterBackoff(base=0.05, cap=0.5) if retries else NoBackoff()
    return BlockingConnectionPool(
        connection_class=own_class,
        max_connections=size,
        timeout=ANSWER_LIMIT,
        socket_timeout=timeout,
        socket_connect_timeout=ANSWER_LIMIT,
        retry=Retry(backoff, retries),
        **address,
    )


async def _close(redis: Redis) -> None:
    pool: Any = redis.connection_pool
    pool.connection_class.client_closed = True
    await asyncio.shield(redis.aclose())  # a cancel would leave open every connection that is not closing yet


async def require_right_mode(redis: Redis) -> None:
    """Raises ConfigError if the server is a node of a Redis Cluster and REDIS_URL does not say so, or the reverse.

    A server that does not answer is checked by every connection that is made later.
    """
    in_cluster = isinstance(redis, ClusterRedis)
    try:
        async with asyncio.timeout(START_LIMIT):
            is_node = bool((await redis.info("cluster")).get("cluster_enabled"))
    except NotTheMaster as error:
        is_node = in_cluster or CLUSTER in str(error)
    except (RedisError, OSError) as error:
        if NO_CLUSTER not in why_away(error):
            return
        is_node = False
    if is_node and not in_cluster:
        raise ConfigError(f"REDIS_URL: {CLUSTER.partition(' ')[2]}")
    if in_cluster and not is_node:
        raise ConfigError("REDIS_URL: the server is no node of a cluster; write redis:// or rediss://")


@asynccontextmanager
async def answered(limit: float = ANSWER_LIMIT) -> AsyncIterator[None]:
    """Turns the errors of a server that is unavailable, cannot write or does not answer in time into Unavailable."""
    try:
        async with asyncio.timeout(limit):
            yield
    except _AWAY as error:
        raise Unavailable from error
