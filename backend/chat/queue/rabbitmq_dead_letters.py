"""Dead letters of turns in RabbitMQ, for an operator.

The broker counts a delivery each time they are read. Since RabbitMQ 4.0, it drops a message of a quorum queue after 20
deliveries unless the queue has a limit of its own. An argument cannot be added to a queue that exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from backend.chat.queue.dead_letters import DeadLetter
from backend.chat.queue.rabbitmq_consumer import REASON
from backend.errors import ConfigError, Unavailable
from backend.rabbitmq import BrokerConnection, SessionRunner, Topology, answered, declare

_WITHIN = 20.0
"""Seconds for one act."""
_MOST = 10_000
"""The most letters that are read to find one."""


class RabbitDeadLetters:
    """The queue of dead letters."""

    def __init__(self, dsn: str, topology: Topology) -> None:
        self._dsn = dsn
        self._topology = topology

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        found: list[DeadLetter] = []

        async def look(broker: BrokerConnection) -> None:
            found.clear()
            async for message in self._messages(broker, limit):
                found.append(_letter(message))

        await self._over_a_connection(look)
        return found

    async def settle(self, id: str, act: Callable[[DeadLetter], Awaitable[None]]) -> bool:
        settled = False

        async def look(broker: BrokerConnection) -> None:
            nonlocal settled
            async for message in self._messages(broker, _MOST):
                if message.message_id == id:
                    await act(_letter(message))
                    async with answered():
                        await message.ack()
                        await broker.channel.flow(active=True)  # its answer shows that the broker has the ack
                    settled = True
                    return

        await self._over_a_connection(look)
        return settled

    async def _messages(self, broker: BrokerConnection, limit: int) -> AsyncIterator[AbstractIncomingMessage]:
        """Yields messages without settling them. They return to the queue when the connection's channel is closed."""
        await declare(broker, self._topology)
        queue = await broker.channel.get_queue(self._topology.dead_queue, ensure=False)
        for _ in range(limit):
            async with answered():
                message = await queue.get(no_ack=False, fail=False)
            if message is None:
                return
            yield message

    async def _over_a_connection(self, session: Callable[[BrokerConnection], Awaitable[None]]) -> None:
        failures: list[Exception] = []

        async def once(broker: BrokerConnection) -> None:
            try:
                await session(broker)
            except (ConfigError, Unavailable) as error:  # otherwise the runner would run the session again
                failures.append(error)

        try:
            async with asyncio.timeout(_WITHIN):
                await SessionRunner(self._dsn, "dead letters", once).run()
        except TimeoutError as error:
            raise Unavailable from error
        for failure in failures:
            raise failure


def _letter(message: AbstractIncomingMessage) -> DeadLetter:
    deaths: Any = message.headers.get("x-death") or [{}]
    reason = message.headers.get(REASON) or deaths[0].get("reason", "unknown")
    return DeadLetter("turns", message.message_id or "", str(reason), message.body)
