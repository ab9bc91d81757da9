"""Taking from a queue of RabbitMQ: messages in hand, and the consumer that fills an intake with them."""

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
from backend.chat.turns import UNREADABLE, Intake, UnreadableError, decode_turn, task_named_by
from backend.errors import Unavailable
from backend.ids import TaskId
from backend.rabbitmq import ANSWER_LIMIT, Topology, Wire, answered, declare

log = logging.getLogger(__name__)

LEAVE_LIMIT = 5.0
LOOK_EVERY = 10.0
REASON, AGAIN = "x-copilot-reason", "x-copilot-again"


def message_of(body: bytes, about: str | None, headers: HeadersType | None = None) -> Message:
    """A persistent message. Its id is new each time: aiormq matches returned messages by it."""
    return Message(
        body,
        content_type="application/json",
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=uuid.uuid4().hex,
        correlation_id=about,
        headers=headers,
    )


class InHand:
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
        """A nack has no answer; that to the next command on its channel tells that the broker saw it."""
        await self._message.nack()
        await self._message.channel.flow(active=True)  # it flows already: only the answer counts

    async def _settle(self, act: Callable[[], Awaitable[None]]) -> bool:
        """False when it was settled before, or its connection is lost."""
        if self._settled:
            return False
        self._settled = True
        try:
            async with answered(2 * ANSWER_LIMIT):
                await act()
        except Unavailable:
            log.info("settled_too_late", extra={"id": self._message.message_id})  # the broker delivers it again
            return False
        else:
            return True
        finally:
            self._intake.settle(self)


class RabbitDelivery(InHand):
    def __init__(
        self,
        turn: Turn,
        message: AbstractIncomingMessage,
        intake: Intake[Any],
        publish_again: Callable[[], Awaitable[None]],
        bury: Callable[[str], Awaitable[None]],
    ) -> None:
        super().__init__(message, intake)
        self.turn = turn
        self.redelivered = bool(message.redelivered) or AGAIN in message.headers
        self._publish_again = publish_again
        self._bury = bury

    async def refuse(self, reason: str) -> None:
        await self._settle(partial(self._bury, reason))

    async def _return(self) -> None:
        """As a new message: the broker then counts deaths only, and no turn is a dead letter because Postgres was away
        for a hundred tries."""
        try:
            await self._publish_again()
        except Unavailable:
            await super()._return()
        else:
            await self._message.ack()


class RabbitDeadTurn(InHand):
    def __init__(self, task_id: TaskId, reason: str, message: AbstractIncomingMessage, intake: Intake[Any]) -> None:
        super().__init__(message, intake)
        self.task_id = task_id
        self.reason = reason


S = TypeVar("S", bound=InHand)
Receive = Callable[[AbstractIncomingMessage, Intake[S], Wire], Awaitable[S | None]]


async def receive_turn(
    topology: Topology, message: AbstractIncomingMessage, intake: Intake[RabbitDelivery], wire: Wire
) -> RabbitDelivery | None:
    """The turn in a message; an unreadable message goes to the dead letters."""
    bury = partial(_bury, topology, message, wire)
    try:
        turn = decode_turn(message.body)
    except UnreadableError:
        log.warning("turn_unreadable", extra={"id": message.message_id})
        await bury(UNREADABLE)
        return None
    return RabbitDelivery(turn, message, intake, partial(_publish_again, topology, message, wire), bury)


async def receive_dead(
    message: AbstractIncomingMessage, intake: Intake[RabbitDeadTurn], _: Wire
) -> RabbitDeadTurn | None:
    """The task that a dead letter names; one that names none is logged and dropped."""
    task_id = task_named_by(message.body)
    if task_id is None:
        log.error("dead_turn_dropped", extra={"id": message.message_id, "begins": message.body[:200]})
        await message.ack()
        return None
    deaths: Any = message.headers.get("x-death") or [{}]
    reason = message.headers.get(REASON) or deaths[0].get("reason", "unknown")
    return RabbitDeadTurn(task_id, str(reason), message, intake)


async def _publish_again(topology: Topology, message: AbstractIncomingMessage, wire: Wire) -> None:
    again = message_of(message.body, message.correlation_id, {AGAIN: True})
    await wire.publish(topology.execution, topology.routing_key, again)


async def _bury(topology: Topology, message: AbstractIncomingMessage, wire: Wire, reason: str) -> None:
    letter = message_of(message.body, message.correlation_id, {REASON: reason[:500]})
    try:
        await wire.publish(topology.dead, topology.dead_key, letter)
    except Unavailable:
        await message.reject(requeue=False)  # the broker moves it there; only the reason is lost
    else:
        await message.ack()


class Consumer(Generic[S]):
    """One `consume()`: an intake, and the session that fills it on whatever wire there is."""

    def __init__(self, topology: Topology, queue: str, slots: int, receive: Receive[S]) -> None:
        self.queue = queue
        self.intake: Intake[S] = Intake(slots)
        self._topology = topology
        self._receive = receive
        self._taking = asyncio.Lock()

    async def run_on(self, wire: Wire) -> None:
        """Takes until the intake is closed, then stays until the last delivery in hand is settled."""
        try:
            await declare(wire, self._topology)
            await self._take(wire)
            await self.intake.emptied()
        finally:
            self.intake.withdraw()  # of a lost wire: the broker delivers them again

    async def leave(self) -> None:
        """Stops the taking and gives back what nobody has taken yet."""
        await asyncio.gather(*(delivery.hand_back() for delivery in self.intake.close()))
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_LIMIT), self._taking:
                pass

    async def _take(self, wire: Wire) -> None:
        """Consumes until the intake closes, with the slots that nothing of an earlier wire holds as prefetch.

        The broker no longer counts what came over that, and a consumer's prefetch cannot grow: when such a delivery is
        settled, one more consumer asks for its slot. None is cancelled before the end, as it would go on in hand.
        The wire is ready when the broker has taken the first of them."""
        async with self._taking:
            earlier, asked, tags = self.intake.in_hand, 0, list[str]()
            queue = await wire.channel.get_queue(self.queue, ensure=False)
            while not self.intake.closed:
                earlier &= self.intake.in_hand
                if more := self.intake.slots - len(earlier) - asked:
                    async with answered():
                        await wire.channel.set_qos(prefetch_count=more)
                        tags.append(await queue.consume(partial(self._put_in, wire)))
                    asked += more
                wire.ready()
                if not await self.intake.settles_within(LOOK_EVERY, earlier) and tags:
                    await self._look_after(wire)
            for tag in tags:
                await queue.cancel(tag)

    async def _look_after(self, wire: Wire) -> None:
        """Raises Unavailable when the broker no longer knows of any consumer."""
        async with answered():
            channel = await wire.channel.get_underlay_channel()
            state = await channel.queue_declare(self.queue, passive=True)
        if not state.consumer_count:
            raise Unavailable("the broker has lost the consumer")

    async def _put_in(self, wire: Wire, message: AbstractIncomingMessage) -> None:
        with suppress(Unavailable):  # lost meanwhile: it comes again
            async with answered(2 * ANSWER_LIMIT):
                delivery = await self._receive(message, self.intake, wire)
                if delivery is not None and not self.intake.offer(delivery):
                    await delivery.hand_back()
