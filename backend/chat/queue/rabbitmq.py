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
from backend.rabbitmq import Blocked, BrokerConnection, SessionRunner, Topology, answered, declare

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
        self._watched: set[SessionRunner] = set()
        self._publisher = SessionRunner(dsn, "publishes", self._publish_on)
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
        return self.trouble is None and all(runner.broker is not None for runner in self._watched)

    @property
    def trouble(self) -> str | None:
        broker = self._publisher.broker
        return "blocked" if broker is not None and broker.blocked.is_set() else None

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
        broker = self._publisher.broker
        if broker is None:
            raise Unavailable
        try:
            await broker.publish(exchange, routing_key, message, mandatory=mandatory)
        except Blocked:
            raise  # the broker answers again when the block is over; another connection would be blocked too
        except Unavailable:
            broker.give_up()  # the next connection declares what was deleted, and may reach a broker that does not hang
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
        runner = SessionRunner(self._dsn, "listens for cancels", partial(self._listen_on, requests))
        async with self._watching(runner) as job:
            try:
                await runner.wait_up(FIRST_CONNECT_LIMIT)
                yield requests
            finally:
                job.cancel()
                await asyncio.wait({job})

    @asynccontextmanager
    async def _consuming(self, consumer: Consumer[S]) -> AsyncIterator[AsyncIterator[S]]:
        runner = SessionRunner(self._dsn, f"takes from {consumer.queue}", consumer.run_on)
        async with self._watching(runner):
            try:
                await runner.wait_up(FIRST_CONNECT_LIMIT)
                yield consumer.intake
            finally:
                await consumer.leave()

    @asynccontextmanager
    async def _watching(self, runner: SessionRunner) -> AsyncIterator[asyncio.Task[None]]:
        job = self._start(runner)
        self._watched.add(runner)
        try:
            yield job
        finally:
            self._watched.discard(runner)

    def _start(self, runner: SessionRunner) -> asyncio.Task[None]:
        job = asyncio.create_task(runner.run())
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    async def _publish_on(self, broker: BrokerConnection) -> None:
        if not broker.knows_consumer_timeout and not self._warned:
            self._warned = True
            version = ".".join(map(str, broker.version))
            advice = (
                "set consumer_timeout in rabbitmq.conf, or turns over 30 minutes are taken back: docs/deployment.md"
            )
            logger.warning(
                "this version of RabbitMQ ignores x-consumer-timeout", extra={"version": version, "advice": advice}
            )
        await declare(broker, self._topology)
        broker.ready()
        while True:  # until the runner ends this session, because the connection is lost
            await broker.blocked.wait()
            self._block.met("the broker has a memory or disk alarm; turns wait in Postgres", at=broker.place)
            try:
                await broker.unblocked()
            finally:  # a block ends with its connection, too
                self._block.over()

    async def _listen_on(self, requests: CancelRequests, broker: BrokerConnection) -> None:
        async def receive(message: AbstractIncomingMessage) -> None:
            requests.offer(message.body)

        await declare(broker, self._topology)
        async with answered():
            queue = await broker.channel.declare_queue(exclusive=True, auto_delete=True)
            await queue.bind(self._topology.cancel)
            await queue.consume(receive, no_ack=True)
        broker.ready()
        await broker.lost.wait()
