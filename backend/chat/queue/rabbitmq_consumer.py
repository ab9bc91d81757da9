"""A consumer of a queue in RabbitMQ: it fills an intake with messages, each of which is settled once."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractIncomingMessage, HeadersType

from backend.chat.models import Turn
from backend.chat.queue.intake import Intake
from backend.chat.queue.turn_queue import UNREADABLE, UnreadableError, decode_turn, task_named_by
from backend.errors import Unavailable
from backend.ids import TaskId
from backend.rabbitmq import ANSWER_LIMIT, BrokerConnection, Topology, answered, declare

logger = logging.getLogger(__name__)

LEAVE_LIMIT = 5.0
"""Seconds to wait until a consumer has stopped."""
CHECK_EVERY = 10.0
"""Seconds between two checks that the broker still has the consumer."""
REASON, AGAIN = "x-copilot-reason", "x-copilot-again"
"""Headers of a message. AGAIN marks a turn that was handed back; nothing reads it but people."""


def message_of(body: bytes, about: str | None, headers: HeadersType | None = None) -> Message:
    """Returns a persistent message. Its id is new each time, because aiormq matches returned messages by their id."""
    return Message(
        body,
        content_type="application/json",
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=uuid.uuid4().hex,
        correlation_id=about,
        headers=headers,
    )


class UnsettledMessage:
    """A message that is settled once."""

    def __init__(self, message: AbstractIncomingMessage, intake: Intake[Any]) -> None:
        self._message = message
        self._intake = intake
        self._settled = False

    async def ack(self) -> None:
        await self._settle(self._message.ack)

    async def hand_back(self) -> bool:
        return await self._settle(self._return)

    async def _return(self) -> None:
        """Sends a nack. It has no answer, but the answer to the next command shows that the broker saw it."""
        await self._message.nack()
        await self._message.channel.flow(active=True)  # changes nothing: only the answer counts

    async def _settle(self, act: Callable[[], Awaitable[None]]) -> bool:
        """Returns False if the message was settled before, or its connection is lost."""
        if self._settled:
            return False
        self._settled = True
        try:
            async with answered(2 * ANSWER_LIMIT):
                await act()
        except Unavailable:
            logger.info(
                "queue message was settled too late", extra={"id": self._message.message_id}
            )  # the broker delivers it again
            return False
        else:
            return True
        finally:
            self._intake.settle(self)


class RabbitDelivery(UnsettledMessage):
    def __init__(
        self,
        turn: Turn,
        message: AbstractIncomingMessage,
        intake: Intake[Any],
        publish_again: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(message, intake)
        self.turn = turn
        self._publish_again = publish_again

    async def _return(self) -> None:
        """Returns the turn as a new message, so that the broker counts only the deaths of executors.

        Otherwise a turn would be a dead letter after Postgres was unavailable for a hundred tries.
        """
        try:
            await self._publish_again()
        except Unavailable:
            await super()._return()
        else:
            await self._message.ack()


class RabbitDeadTurn(UnsettledMessage):
    def __init__(self, task_id: TaskId, reason: str, message: AbstractIncomingMessage, intake: Intake[Any]) -> None:
        super().__init__(message, intake)
        self.task_id = task_id
        self.reason = reason


S = TypeVar("S", bound=UnsettledMessage)
Receive = Callable[[AbstractIncomingMessage, Intake[S]], Awaitable[S | None]]
Send = Callable[[str, str, Message], Awaitable[None]]
"""Publishes to an exchange with a routing key. Raises Unavailable."""


async def receive_turn(
    topology: Topology, send: Send, message: AbstractIncomingMessage, intake: Intake[RabbitDelivery]
) -> RabbitDelivery | None:
    """Reads the turn in a message. Sends an unreadable message to the dead letters and returns None."""
    try:
        turn = decode_turn(message.body)
    except UnreadableError:
        logger.warning("queue message is not a turn and becomes a dead letter", extra={"id": message.message_id})
        await _send_to_dead_letters(topology, send, message, UNREADABLE)
        return None
    return RabbitDelivery(turn, message, intake, partial(_publish_again, topology, send, message))


async def receive_dead(message: AbstractIncomingMessage, intake: Intake[RabbitDeadTurn]) -> RabbitDeadTurn | None:
    """Reads the task that a dead letter names. Logs and drops a letter that names none, and returns None."""
    task_id = task_named_by(message.body)
    if task_id is None:
        logger.error(
            "dead letter names no task and is dropped", extra={"id": message.message_id, "begins": message.body[:200]}
        )
        await message.ack()
        return None
    deaths: Any = message.headers.get("x-death") or [{}]
    reason = message.headers.get(REASON) or deaths[0].get("reason", "unknown")
    return RabbitDeadTurn(task_id, str(reason), message, intake)


async def _publish_again(topology: Topology, send: Send, message: AbstractIncomingMessage) -> None:
    again = message_of(message.body, message.correlation_id, {AGAIN: True})
    await send(topology.execution, topology.routing_key, again)


async def _send_to_dead_letters(topology: Topology, send: Send, message: AbstractIncomingMessage, reason: str) -> None:
    letter = message_of(message.body, message.correlation_id, {REASON: reason})
    try:
        await send(topology.dead, topology.dead_key, letter)
    except Unavailable:
        await message.reject(requeue=False)  # the broker moves it to the dead letters without the reason
    else:
        await message.ack()


class Consumer(Generic[S]):
    """One `consume()`: an intake, and the session that fills it over the present connection."""

    def __init__(self, topology: Topology, queue: str, slots: int, receive: Receive[S]) -> None:
        self.queue = queue
        self.intake: Intake[S] = Intake(slots)
        self._topology = topology
        self._receive = receive
        self._taking = asyncio.Lock()

    async def run_on(self, broker: BrokerConnection) -> None:
        """Takes messages until the intake is closed, then waits until the last one is settled."""
        try:
            await declare(broker, self._topology)
            await self._take(broker)
            await self.intake.wait_until_settled()
        finally:
            self.intake.withdraw()  # if the connection was lost, the broker delivers them again

    async def leave(self) -> None:
        """Stops taking messages, and hands back the deliveries that were not taken yet."""
        await asyncio.gather(*(delivery.hand_back() for delivery in self.intake.close()))
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_LIMIT), self._taking:
                pass

    async def _take(self, broker: BrokerConnection) -> None:
        """Consumes until the intake closes. Deliveries of an earlier connection keep their slots.

        The prefetch is the number of the other slots, and the prefetch of a consumer cannot grow. So when a delivery of
        an earlier connection is settled, one more consumer asks for its slot. No consumer is cancelled before the end,
        because its deliveries would stay unsettled. The connection is ready when the broker has accepted the first
        consumer.
        """
        async with self._taking:
            earlier, asked, tags = self.intake.unsettled, 0, list[str]()
            queue = await broker.channel.get_queue(self.queue, ensure=False)
            while not self.intake.closed:
                earlier &= self.intake.unsettled
                if more := self.intake.slots - len(earlier) - asked:
                    async with answered():
                        await broker.channel.set_qos(prefetch_count=more)
                        tags.append(await queue.consume(self._put_in))
                    asked += more
                broker.ready()
                if not await self.intake.settles_within(CHECK_EVERY, earlier) and tags:
                    await self._check_consumers(broker)
            async with answered():
                for tag in tags:
                    await queue.cancel(tag)

    async def _check_consumers(self, broker: BrokerConnection) -> None:
        """Raises Unavailable if the broker no longer has any consumer of the queue."""
        async with answered():
            channel = await broker.channel.get_underlay_channel()
            state = await channel.queue_declare(self.queue, passive=True)
        if not state.consumer_count:
            raise Unavailable("the broker has lost the consumer")

    async def _put_in(self, message: AbstractIncomingMessage) -> None:
        with suppress(Unavailable):  # if the connection was lost meanwhile, the message comes again
            async with answered(2 * ANSWER_LIMIT):
                delivery = await self._receive(message, self.intake)
                if delivery is not None and not self.intake.offer(delivery):
                    await delivery.hand_back()
