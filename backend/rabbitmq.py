"""RabbitMQ: what must exist there, and connections that are kept up."""

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
from backend.logs import Trouble, place_of, why_away

log = logging.getLogger(__name__)

HEARTBEAT = 10
ANSWER_LIMIT, DECLARE_LIMIT = 5.0, 10.0
"""Seconds until a broker that does not answer counts as away: one question, or all that must exist."""
FIRST_PAUSE, LONGEST_PAUSE, STEADY = 0.1, 5.0, 10.0
DEAD_LETTERS_KEPT = 100_000
CONSUMER_TIMEOUT_SINCE = (3, 11, 15)


@dataclass(frozen=True, slots=True)
class Topology:
    """The names of what must exist. `consumer_timeout` is in seconds: how long a turn may be in hand."""

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
        """The same under other names, for tests on a shared broker."""
        names = ("execution", "queue", "dead", "dead_queue", "cancel")
        return replace(self, **{name: prefix + getattr(self, name) for name in names})


@asynccontextmanager
async def answered(limit: float = ANSWER_LIMIT) -> AsyncIterator[None]:
    """Whatever the library raises inside, or a broker that does not answer in time, becomes Unavailable."""
    try:
        async with asyncio.timeout(limit):
            yield
    except asyncio.CancelledError:
        job = asyncio.current_task()
        if job is None or job.cancelling():
            raise
        raise Unavailable from None  # aiormq cancels what waits on a connection that it gives up
    except (*CONNECTION_EXCEPTIONS, TimeoutError) as error:
        raise Unavailable from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise Unavailable from error  # what waits on a connection that aiormq ends without a reason gets a bare one


@dataclass(eq=False)
class Wire:
    """One connection with one open channel (confirms on, unroutable messages raise). Lost once, lost for good."""

    connection: AbstractConnection
    channel: AbstractChannel
    version: tuple[int, ...]
    on_ready: Callable[[Wire], None]
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def knows_consumer_timeout(self) -> bool:
        """Whether the broker takes `x-consumer-timeout`; older ones read it from rabbitmq.conf only."""
        return self.version >= CONSUMER_TIMEOUT_SINCE

    def ready(self) -> None:
        """The session says that it does what it is for; it may say so again."""
        self.on_ready(self)

    def give_up(self, *_: object) -> None:
        """Ends this wire; its line makes a new one."""
        self.lost.set()

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool = True) -> None:
        """Returns when the broker has confirmed the message. Raises Unavailable."""
        async with answered():
            channel = await self.channel.get_underlay_channel()
            await channel.basic_publish(
                message.body,
                exchange=exchange,
                routing_key=routing_key,
                properties=message.properties,
                mandatory=mandatory,
            )


Session = Callable[[Wire], Awaitable[None]]


@cache
def _trouble_at(place: str) -> Trouble:
    """One for all lines to a broker: they are lost together."""
    return Trouble(log, "RabbitMQ is away", setting="RABBITMQ_URL (or RABBITMQ_HOST)", at=place)


class Line:
    """Runs a session on one wire after another, with growing random pauses between them, until the session returns.

    The session is cancelled when its connection, its channel or one of its consumers is lost."""

    def __init__(self, dsn: str, name: str, session: Session) -> None:
        self._dsn = dsn
        self._name = name
        self._session = session
        self._up = asyncio.Event()
        self._wire: Wire | None = None
        self._trouble = _trouble_at(place_of(dsn))

    @property
    def wire(self) -> Wire | None:
        """The wire whose session is ready."""
        return None if self._wire is None or self._wire.lost.is_set() else self._wire

    async def wait_up(self, limit: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._up.wait()
        return self.wire is not None

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
                self._wire = None
                self._up.clear()
            trouble = asyncio.CancelledError() if life.cancelled() else life.exception()
            if trouble is None and life.result():
                return
            if loop.time() - began > STEADY:
                pause = FIRST_PAUSE
            cause = trouble.__cause__ if isinstance(trouble, Unavailable) else None
            self._trouble.met("the connection was lost" if trouble is None else why_away(cause or trouble))
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  # jitter, no secret
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _live(self) -> bool:
        """One wire from its making to its end. True when the session returned."""
        connection = _Connection(
            URL(self._dsn).update_query(heartbeat=str(HEARTBEAT)),
            client_properties={"connection_name": f"copilot {self._name}"},
            transport_factory=_Keepalive(),
        )
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await connection.connect()
                wire = await self._open_wire(connection)
            return await self._until_lost(wire)
        finally:
            with suppress(*CONNECTION_EXCEPTIONS, TimeoutError):
                async with asyncio.timeout(ANSWER_LIMIT):
                    await connection.close()

    async def _open_wire(self, connection: _Connection) -> Wire:
        channel = connection.channel(on_return_raises=True)
        await channel.initialize()
        transport = connection.transport
        assert transport is not None
        wire = Wire(connection, channel, _version(transport.connection), self._is_ready)
        connection.close_callbacks.add(wire.give_up)
        channel.close_callbacks.add(wire.give_up)
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(wire.give_up)
        return wire

    async def _until_lost(self, wire: Wire) -> bool:
        work = asyncio.ensure_future(self._session(wire))
        lost = asyncio.ensure_future(wire.lost.wait())
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
            return not wire.lost.is_set()
        finally:
            work.cancel()
            lost.cancel()
            await asyncio.wait({work, lost})

    def _is_ready(self, wire: Wire) -> None:
        if self._wire is not wire:
            self._wire = wire
            self._up.set()
            self._trouble.over()


def _version(connection: aiormq.abc.AbstractConnection) -> tuple[int, ...]:
    told = connection.server_properties.get("version") if connection.server_properties else None
    text = told.decode() if isinstance(told, bytes) else str(told)
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


class _Keepalive(TransportFactory):
    """TCP or TLS by the URL, with TCP keepalive: a vanished host is noticed without traffic, too."""

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return reader, writer


class _Connection(aio_pika.Connection):
    """Hands our transport factory through to aiormq."""

    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=lambda factory: factory, is_kwarg=True),
    )


# --- what must exist ----------------------------------------------------------------------------------------------


async def declare(wire: Wire, topology: Topology) -> None:
    """Makes every durable exchange, queue and binding that is missing. Raises Unavailable.

    On channels of its own: the broker closes a channel on which a declaration differs from what exists."""
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": topology.dead,
        "x-dead-letter-routing-key": topology.dead_key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # at-least-once falls back to at-most-once without it
        "x-delivery-limit": topology.delivery_limit,
    }
    if wire.knows_consumer_timeout:
        arguments["x-consumer-timeout"] = int(topology.consumer_timeout * 1000)
    async with answered(DECLARE_LIMIT):
        await _declare_queue(wire, topology.queue, arguments)
        await _declare_queue(wire, topology.dead_queue, {"x-queue-type": "quorum", "x-max-length": DEAD_LETTERS_KEPT})
        async with wire.connection.channel() as channel:
            for name, kind in (
                (topology.execution, ExchangeType.DIRECT),
                (topology.dead, ExchangeType.DIRECT),
                (topology.cancel, ExchangeType.FANOUT),
            ):
                await channel.declare_exchange(name, kind, durable=True)
            rpc = await channel.get_underlay_channel()
            await rpc.queue_bind(topology.queue, topology.execution, topology.routing_key)
            await rpc.queue_bind(topology.dead_queue, topology.dead, topology.dead_key)


async def _declare_queue(wire: Wire, name: str, arguments: dict[str, Any]) -> None:
    try:
        async with wire.connection.channel() as channel:
            await channel.declare_queue(name, durable=True, arguments=arguments)
    except ChannelPreconditionFailed as error:
        # It was made with other arguments, by an operator or before the broker was upgraded: it serves all the same.
        log.warning("rabbitmq_queue_differs", extra={"queue": name, "trouble": str(error)})
