"""The turn queue in RabbitMQ: a quorum queue of turns, a fanout of cancel requests, a queue of dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from aio_pika import Message
from aio_pika.abc import AbstractIncomingMessage

from backend.chat.models import Turn
from backend.chat.queue.intake import CancelRequests
from backend.chat.queue.rabbitmq_consumer import Consumer, UnsettledMessage, message_of, receive_dead, receive_turn
from backend.chat.queue.turn_queue import DeadTurn, Delivery, encode_cancel, encode_turn
from backend.errors import Unavailable
from backend.ids import TaskId
from backend.logs import Trouble
from backend.rabbitmq import Blocked, Line, Topology, Wire, answered, declare

logger = logging.getLogger(__name__)

FIRST_CONNECT_LIMIT = 3.0
"""Seconds to wait for the first connection; after that, connecting continues in the background."""
S = TypeVar("S", bound=UnsettledMessage)


@asynccontextmanager
async def open_rabbit_turns(dsn: str, topology: Topology | None = None) -> AsyncIterator[RabbitTurns]:
    """Opens the queue and declares what it needs.

    An unavailable broker is no error: the queue is then not `healthy`, and tries to connect without limit.
    """
    turns = RabbitTurns(dsn, topology or Topology())
    try:
        await turns.connect()
        yield turns
    finally:
        await turns.close()


class RabbitTurns:
    """A TurnQueue. One connection publishes; each open `consume()`, `cancel_requests()` and `dead_turns()` has its own.

    They are separate because the broker stops reading from a connection that publishes if its memory is full. So no
    consumer publishes on its own connection: the broker would no longer see its acks.
    """

    def __init__(self, dsn: str, topology: Topology) -> None:
        self._dsn = dsn
        self._topology = topology
        self._warned = False
        self._jobs: set[asyncio.Task[None]] = set()
        self._watched: set[Line] = set()
        self._publisher = Line(dsn, "publishes", self._publish_on)
        self._block = Trouble(logger, "RabbitMQ has blocked publishing")

    async def connect(self) -> None:
        self._start(self._publisher)
        self._watched.add(self._publisher)
        await self._publisher.wait_up(FIRST_CONNECT_LIMIT)

    async def close(self) -> None:
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    @property
    def healthy(self) -> bool:
        return self.trouble is None and all(line.wire is not None for line in self._watched)

    @property
    def trouble(self) -> str | None:
        wire = self._publisher.wire
        return "blocked" if wire is not None and wire.blocked.is_set() else None

    async def publish(self, turn: Turn) -> None:
        message = message_of(encode_turn(turn), turn.task_id)
        await self._send(self._topology.execution, self._topology.routing_key, message)

    async def publish_cancel(self, task_id: TaskId) -> None:
        try:
            await self._send(self._topology.cancel, "", message_of(encode_cancel(task_id), task_id), mandatory=False)
        except Unavailable:
            logger.warning("cancel request was not sent", extra={"task": task_id})

    async def _send(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool = True) -> None:
        """Publishes a message. Raises Unavailable, at once if the broker blocks or is away, and after ANSWER_LIMIT."""
        wire = self._publisher.wire
        if wire is None:
            raise Unavailable
        try:
            await wire.publish(exchange, routing_key, message, mandatory=mandatory)
        except Blocked:
            raise  # the broker answers again when the block is over; another connection would be blocked too
        except Unavailable:
            wire.give_up()  # the next wire declares what was deleted, and may reach a broker that does not hang
            raise

    @asynccontextmanager
    async def consume(self, slots: int) -> AsyncIterator[AsyncIterator[Delivery]]:
        receive = partial(receive_turn, self._topology, self._send)
        async with self._consuming(Consumer(self._topology, self._topology.queue, slots, receive)) as deliveries:
            yield deliveries

    @asynccontextmanager
    async def dead_turns(self) -> AsyncIterator[AsyncIterator[DeadTurn]]:
        async with self._consuming(Consumer(self._topology, self._topology.dead_queue, 1, receive_dead)) as letters:
            yield letters

    @asynccontextmanager
    async def cancel_requests(self) -> AsyncIterator[AsyncIterator[TaskId]]:
        requests = CancelRequests()
        line = Line(self._dsn, "listens for cancels", partial(self._listen_on, requests))
        async with self._watching(line) as job:
            try:
                await line.wait_up(FIRST_CONNECT_LIMIT)
                yield requests
            finally:
                job.cancel()
                await asyncio.wait({job})

    @asynccontextmanager
    async def _consuming(self, consumer: Consumer[S]) -> AsyncIterator[AsyncIterator[S]]:
        line = Line(self._dsn, f"takes from {consumer.queue}", consumer.run_on)
        async with self._watching(line):
            try:
                await line.wait_up(FIRST_CONNECT_LIMIT)
                yield consumer.intake
            finally:
                await consumer.leave()

    @asynccontextmanager
    async def _watching(self, line: Line) -> AsyncIterator[asyncio.Task[None]]:
        job = self._start(line)
        self._watched.add(line)
        try:
            yield job
        finally:
            self._watched.discard(line)

    def _start(self, line: Line) -> asyncio.Task[None]:
        job = asyncio.create_task(line.run())
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    async def _publish_on(self, wire: Wire) -> None:
        if not wire.knows_consumer_timeout and not self._warned:
            self._warned = True
            version = ".".join(map(str, wire.version))
            advice = (
                "set consumer_timeout in rabbitmq.conf, or turns over 30 minutes are taken back: docs/deployment.md"
            )
            logger.warning(
                "this version of RabbitMQ ignores x-consumer-timeout", extra={"version": version, "advice": advice}
            )
        await declare(wire, self._topology)
        wire.ready()
        while True:  # until the line ends this session, because the wire is lost
            await wire.blocked.wait()
            self._block.met("the broker has a memory or disk alarm; turns wait in Postgres", at=wire.place)
            try:
                await wire.unblocked()
            finally:  # a block ends with its connection, too
                self._block.over()

    async def _listen_on(self, requests: CancelRequests, wire: Wire) -> None:
        async def receive(message: AbstractIncomingMessage) -> None:
            requests.offer(message.body)

        await declare(wire, self._topology)
        async with answered():
            queue = await wire.channel.declare_queue(exclusive=True, auto_delete=True)
            await queue.bind(self._topology.cancel)
            await queue.consume(receive, no_ack=True)
        wire.ready()
        await wire.lost.wait()
