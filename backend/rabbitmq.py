"""RabbitMQ: the exchanges and queues that must exist, and connections that are restored when they are lost."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Self

import aio_pika
import aiormq.abc
from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractConnection, ConnectionParameter, ExchangeType
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ChannelPreconditionFailed
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from backend.errors import Unavailable
from backend.jitter import jitter
from backend.logs import Trouble, place_of, why_away
from backend.rabbitmq_address import parse_rabbitmq_url

logger = logging.getLogger(__name__)

HEARTBEAT = 5
"""Seconds. The broker gives the messages of a silent consumer to others after two to three times as long."""
ANSWER_LIMIT, DECLARE_LIMIT = 5.0, 10.0
"""Seconds until a broker counts as unavailable: for one answer, and for declaring everything that must exist."""
FIRST_PAUSE, LONGEST_PAUSE, STEADY = 0.1, 5.0, 10.0
"""Seconds of the first and the longest pause between attempts to connect. A connection that lasts STEADY resets it."""
MAX_RABBITMQ_DEAD_LETTERS = 100_000  # messages in the dead-letter queue
LOOK_FOR_BLOCK_EVERY = 0.2
"""Seconds between two looks whether the broker blocks a connection. A look costs no request."""
CONSUMER_TIMEOUT_SINCE = (3, 11, 15)  # the first version with x-consumer-timeout


@dataclass(frozen=True, slots=True)
class Topology:
    """The names of exchanges and queues. `consumer_timeout` is how long a turn may stay unsettled, in seconds."""

    execution: str = "copilot_execution"
    queue: str = "copilot_execution_queue"
    dead: str = "copilot_execution_dead"
    dead_queue: str = "copilot_execution_dead_queue"
    cancel: str = "copilot_cancel"
    routing_key: str = "copilot.run"
    dead_key: str = "copilot.dead"
    delivery_limit: int = 100
    consumer_timeout: float = 3 * 3600

    def prefixed(self, prefix: str) -> Self:
        """Returns the same topology under prefixed names, for tests on a shared broker."""
        names = ("execution", "queue", "dead", "dead_queue", "cancel")
        return replace(self, **{name: prefix + getattr(self, name) for name in names})


@asynccontextmanager
async def answered(limit: float = ANSWER_LIMIT) -> AsyncIterator[None]:
    """Turns errors of the library, and a broker that does not answer in time, into Unavailable."""
    try:
        async with asyncio.timeout(limit):
            yield
    except asyncio.CancelledError:
        job = asyncio.current_task()
        if job is None or job.cancelling():
            raise
        raise Unavailable from None  # aiormq cancels whoever waits on a connection that it drops
    except (*CONNECTION_EXCEPTIONS, TimeoutError) as error:
        raise Unavailable from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise Unavailable from error  # aiormq raises Exception itself if it closes a connection without a reason


class Blocked(Unavailable):
    """The broker takes no messages now, because its memory or its disk is nearly full."""


@dataclass(eq=False)
class BrokerConnection:
    """One connection with one open channel (confirms on, unroutable messages raise). It is never restored once lost."""

    connection: AbstractConnection
    channel: AbstractChannel
    version: tuple[int, ...]
    place: str
    """Host and port of the node."""
    on_ready: Callable[[BrokerConnection], None]
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    blocked: asyncio.Event = field(default_factory=asyncio.Event)
    _unblocked: asyncio.Event = field(default_factory=asyncio.Event)
    """`blocked` is set while the broker, short of memory or disk, reads nothing from a connection that publishes."""

    @property
    def knows_consumer_timeout(self) -> bool:
        """Support for `x-consumer-timeout`. An older broker reads the timeout only from rabbitmq.conf."""
        return self.version >= CONSUMER_TIMEOUT_SINCE

    def ready(self) -> None:
        """Tells the runner that the session works. The session may call this more than once."""
        self.on_ready(self)

    def give_up(self, *_: object) -> None:
        """Ends this connection. Its runner opens a new one."""
        self.lost.set()

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool = True) -> None:
        """Returns when the broker has confirmed the message.

        Raises Unavailable, and Blocked as soon as the broker blocks the connection. The broker may have the message
        nevertheless, or take it when the block is over.
        """
        if self.blocked.is_set():
            raise Blocked
        confirmed = asyncio.ensure_future(self._publish(exchange, routing_key, message, mandatory=mandatory))
        blocked = asyncio.ensure_future(self.blocked.wait())
        try:
            await asyncio.wait({confirmed, blocked}, return_when=asyncio.FIRST_COMPLETED)
            if not confirmed.done():
                raise Blocked
            confirmed.result()
        finally:
            confirmed.cancel()
            blocked.cancel()
            await asyncio.gather(confirmed, blocked, return_exceptions=True)

    async def _publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool) -> None:
        async with answered():
            channel = await self.channel.get_underlay_channel()
            await channel.basic_publish(
                message.body,
                exchange=exchange,
                routing_key=routing_key,
                properties=message.properties,
                mandatory=mandatory,
            )

    async def unblocked(self) -> None:
        """Waits until the broker does not block the connection."""
        await self._unblocked.wait()

    async def watch_for_block(self) -> None:
        """Keeps `blocked` up to date until it is cancelled."""
        transport = self.connection.transport
        assert transport is not None
        while True:
            unblocked = asyncio.ensure_future(transport.connection.ready())
            try:
                await asyncio.wait({unblocked}, timeout=LOOK_FOR_BLOCK_EVERY)
                if not unblocked.done():
                    self._unblocked.clear()
                    self.blocked.set()
                    await unblocked
                self.blocked.clear()
                self._unblocked.set()
            finally:
                unblocked.cancel()
            await asyncio.sleep(LOOK_FOR_BLOCK_EVERY)


Session = Callable[[BrokerConnection], Awaitable[None]]


@cache
def _trouble_at(places: str) -> Trouble:
    """Returns the trouble that all connections to a broker, or to its nodes, share, since they are lost together."""
    return Trouble(logger, "RabbitMQ is unavailable", setting="RABBITMQ_URL (or RABBITMQ_HOST)", at=places)


class SessionRunner:
    """A job that runs a session on one connection after another, with growing random pauses, until the session returns.

    The session is cancelled when its connection, its channel or one of its consumers is lost.
    """

    def __init__(self, dsn: str, name: str, session: Session) -> None:
        self._urls = parse_rabbitmq_url(dsn)
        self._turn = random.randrange(len(self._urls))  # noqa: S311 - spreads the connections over the nodes
        self._name = name
        self._session = session
        self._up = asyncio.Event()
        self._broker: BrokerConnection | None = None
        self._trouble = _trouble_at(",".join(place_of(str(url)) for url in self._urls))

    @property
    def _url(self) -> URL:
        """The node whose turn it is."""
        return self._urls[self._turn % len(self._urls)]

    @property
    def broker(self) -> BrokerConnection | None:
        """The connection whose session is ready; None while there is none."""
        return None if self._broker is None or self._broker.lost.is_set() else self._broker

    async def wait_up(self, limit: float) -> bool:
        """Waits up to `limit` seconds for a session to be ready. Returns False on timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._up.wait()
        return self.broker is not None

    async def run(self) -> None:
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
        while True:
            began = loop.time()
            life = asyncio.create_task(self._live(), name=f"rabbitmq {self._name}")
            try:
                await asyncio.wait({life})
            finally:
                life.cancel()
                await asyncio.wait({life}, timeout=ANSWER_LIMIT)
                self._broker = None
                self._up.clear()
            trouble = asyncio.CancelledError() if life.cancelled() else life.exception()
            if trouble is None and life.result():
                return
            if loop.time() - began > STEADY:
                pause = FIRST_PAUSE
            cause = trouble.__cause__ if isinstance(trouble, Unavailable) else None
            why, wait = "the connection was lost" if trouble is None else why_away(cause or trouble), jitter(pause)
            self._trouble.met(why, node=place_of(str(self._url)), retry_in=round(wait, 2))
            self._turn += 1
            await asyncio.sleep(wait)
            if self._turn % len(self._urls) == 0:  # every node was tried
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _live(self) -> bool:
        """Opens one connection and runs the session on it. Returns True if the session returned."""
        connection = _Connection(
            self._url.update_query(heartbeat=str(HEARTBEAT)),
            client_properties={"connection_name": f"copilot {self._name}"},
            transport_factory=_Keepalive(),
        )
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await connection.connect()
                broker = await self._open_channel(connection)
            return await self._until_lost(broker)
        finally:
            with suppress(*CONNECTION_EXCEPTIONS, TimeoutError):
                async with asyncio.timeout(ANSWER_LIMIT):
                    await connection.close()

    async def _open_channel(self, connection: _Connection) -> BrokerConnection:
        channel = connection.channel(on_return_raises=True)
        await channel.initialize()
        transport = connection.transport
        assert transport is not None
        place = place_of(str(self._url))
        broker = BrokerConnection(connection, channel, _version(transport.connection), place, self._is_ready)
        connection.close_callbacks.add(broker.give_up)
        channel.close_callbacks.add(broker.give_up)
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(broker.give_up)
        return broker

    async def _until_lost(self, broker: BrokerConnection) -> bool:
        work = asyncio.ensure_future(self._session(broker))
        lost = asyncio.ensure_future(broker.lost.wait())
        watch = asyncio.ensure_future(broker.watch_for_block())
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
            return not broker.lost.is_set()
        finally:
            for job in (work, lost, watch):
                job.cancel()
            await asyncio.wait({work, lost, watch})

    def _is_ready(self, broker: BrokerConnection) -> None:
        if self._broker is not broker:
            self._broker = broker
            self._up.set()
            self._trouble.over()


def _version(connection: aiormq.abc.AbstractConnection) -> tuple[int, ...]:
    version = connection.server_properties.get("version") if connection.server_properties else None
    text = version.decode() if isinstance(version, bytes) else str(version)
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


class _Keepalive(TransportFactory):
    """TCP or TLS, depending on the URL, with TCP keepalive: it detects a vanished host even without traffic."""

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return reader, writer


class _Connection(aio_pika.Connection):
    """A connection that passes its `transport_factory` on to aiormq."""

    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=lambda factory: factory, is_kwarg=True),
    )


# --- topology ----------------------------------------------------------------------------------------------------


def queue_arguments(broker: BrokerConnection, topology: Topology) -> dict[str, dict[str, Any]]:
    """Returns the arguments with which each durable queue is declared, by its name."""
    turns: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": topology.dead,
        "x-dead-letter-routing-key": topology.dead_key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # at-least-once falls back to at-most-once without it
        "x-delivery-limit": topology.delivery_limit,
    }
    if broker.knows_consumer_timeout:
        turns["x-consumer-timeout"] = int(topology.consumer_timeout * 1000)
    dead = {"x-queue-type": "quorum", "x-max-length": MAX_RABBITMQ_DEAD_LETTERS}
    return {topology.queue: turns, topology.dead_queue: dead}


async def declare(broker: BrokerConnection, topology: Topology) -> None:
    """Creates every durable exchange, queue and binding that is missing. Raises Unavailable.

    It uses separate channels: the broker closes a channel on which a declaration differs from what exists.
    """
    async with answered(DECLARE_LIMIT):
        for name, arguments in queue_arguments(broker, topology).items():
            await _declare_queue(broker, name, arguments)
        async with broker.connection.channel() as channel:
            for name, kind in (
                (topology.execution, ExchangeType.DIRECT),
                (topology.dead, ExchangeType.DIRECT),
                (topology.cancel, ExchangeType.FANOUT),
            ):
                await channel.declare_exchange(name, kind, durable=True)
            rpc = await channel.get_underlay_channel()
            await rpc.queue_bind(topology.queue, topology.execution, topology.routing_key)
            await rpc.queue_bind(topology.dead_queue, topology.dead, topology.dead_key)


async def _declare_queue(broker: BrokerConnection, name: str, arguments: dict[str, Any]) -> None:
    try:
        async with broker.connection.channel() as channel:
            await channel.declare_queue(name, durable=True, arguments=arguments)
    except ChannelPreconditionFailed as error:
        # An operator created it with other arguments, or the broker was upgraded since. The queue can still be used.
        logger.warning("queue has other arguments than declared", extra={"queue": name, "trouble": str(error)})
