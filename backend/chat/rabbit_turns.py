"""The turn queue over RabbitMQ: a quorum queue of turns, a fanout of cancel wishes, a queue of dead letters."""

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
from backend.chat.rabbit_deliveries import Consumer, InHand, message_of, receive_dead, receive_turn
from backend.chat.turns import DeadTurn, Delivery, Wishes, encode_turn, encode_wish
from backend.errors import Unavailable
from backend.ids import TaskId
from backend.rabbitmq import Line, Topology, Wire, answered, declare

log = logging.getLogger(__name__)

FIRST_CONNECT_LIMIT = 3.0
S = TypeVar("S", bound=InHand)


@asynccontextmanager
async def open_rabbit_turns(dsn: str, topology: Topology | None = None) -> AsyncIterator[RabbitTurns]:
    """Connects and declares. A broker that is away is no error: `healthy` tells, and it is tried again for ever."""
    turns = RabbitTurns(dsn, topology or Topology())
    try:
        await turns.connect()
        yield turns
    finally:
        await turns.close()


class RabbitTurns:
    """A TurnQueue. One connection publishes; each open `consume()`, `cancel_wishes()` and `dead_turns()` has its own,
    because the broker stops reading from connections that publish when its memory is full."""

    def __init__(self, dsn: str, topology: Topology) -> None:
        self._dsn = dsn
        self._topology = topology
        self._warned = False
        self._jobs: set[asyncio.Task[None]] = set()
        self._watched: set[Line] = set()
        self._publisher = Line(dsn, "publishes", self._publish_on)

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
        return all(line.wire is not None for line in self._watched)

    async def publish(self, turn: Turn) -> None:
        message = message_of(encode_turn(turn), turn.task_id)
        await self._send(self._topology.execution, self._topology.routing_key, message, mandatory=True)

    async def wish_cancel(self, task_id: TaskId) -> None:
        try:
            await self._send(self._topology.cancel, "", message_of(encode_wish(task_id), task_id), mandatory=False)
        except Unavailable:
            log.warning("cancel_wish_not_sent", extra={"task": task_id})

    async def _send(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool) -> None:
        wire = self._publisher.wire
        if wire is None:
            raise Unavailable
        try:
            await wire.publish(exchange, routing_key, message, mandatory=mandatory)
        except Unavailable:
            wire.give_up()  # what was deleted is declared again, and a broker that hangs is not waited for twice
            raise

    @asynccontextmanager
    async def consume(self, slots: int) -> AsyncIterator[AsyncIterator[Delivery]]:
        receive = partial(receive_turn, self._topology)
        async with self._consuming(Consumer(self._topology, self._topology.queue, slots, receive)) as deliveries:
            yield deliveries

    @asynccontextmanager
    async def dead_turns(self) -> AsyncIterator[AsyncIterator[DeadTurn]]:
        async with self._consuming(Consumer(self._topology, self._topology.dead_queue, 1, receive_dead)) as letters:
            yield letters

    @asynccontextmanager
    async def cancel_wishes(self) -> AsyncIterator[AsyncIterator[TaskId]]:
        wishes = Wishes()
        line = Line(self._dsn, "listens for cancels", partial(self._listen_on, wishes))
        async with self._watching(line) as job:
            try:
                await line.wait_up(FIRST_CONNECT_LIMIT)
                yield wishes
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
                "set consumer_timeout in its rabbitmq.conf, or a turn over 30 minutes is taken away: docs/deployment.md"
            )
            log.warning("RabbitMQ takes no x-consumer-timeout", extra={"version": version, "advice": advice})
        await declare(wire, self._topology)
        wire.ready()
        await wire.lost.wait()

    async def _listen_on(self, wishes: Wishes, wire: Wire) -> None:
        async def hear(message: AbstractIncomingMessage) -> None:
            wishes.offer(message.body)

        await declare(wire, self._topology)
        async with answered():
            queue = await wire.channel.declare_queue(exclusive=True, auto_delete=True)
            await queue.bind(self._topology.cancel)
            await queue.consume(hear, no_ack=True)
        wire.ready()
        await wire.lost.wait()
