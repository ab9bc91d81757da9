"""Checks of RabbitMQ: reach, version, arguments of the queues, consumers and dead letters. They make nothing new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiormq.exceptions
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from backend.chat.queue.open import topology_of
from backend.config import Settings
from backend.errors import ConfigError
from backend.logs import place_of
from backend.operating.findings import Finding, error, ok, warning
from backend.rabbitmq import BrokerConnection, SessionRunner, Topology, answered, queue_arguments

_WITHIN = 10.0
"""Seconds in which RabbitMQ must answer everything."""


async def check_rabbitmq(settings: Settings) -> AsyncIterator[Finding]:
    """Yields the findings, none if the queue is in Redis."""
    if settings.queue != "rabbitmq":
        return
    found: list[Finding] = []
    try:
        dsn = settings.rabbitmq_dsn

        async def session(broker: BrokerConnection) -> None:
            found.clear()
            await _check(broker, topology_of(settings), found)

        async with asyncio.timeout(_WITHIN):
            await SessionRunner(dsn, "doctor", session).run()
    except ConfigError as wrong:
        found.append(error("rabbitmq", str(wrong), "correct the setting: docs/deployment.md, RabbitMQ"))
    except TimeoutError:
        where = place_of(settings.rabbitmq_dsn)
        found.append(error("rabbitmq", f"{where} does not answer", "see docs/runbook.md, When a store is unavailable"))
    for finding in found:
        yield finding


async def _check(broker: BrokerConnection, topology: Topology, found: list[Finding]) -> None:
    found.append(ok("rabbitmq", f"version {'.'.join(map(str, broker.version))}"))
    if not broker.knows_consumer_timeout:
        found.append(
            warning("rabbitmq", "this version ignores x-consumer-timeout", "set consumer_timeout: docs/deployment.md")
        )
    if broker.blocked.is_set():
        found.append(error("rabbitmq", "it has a memory or disk alarm", "run `rabbitmqctl status`, and give it room"))
    for name, arguments in queue_arguments(broker, topology).items():
        state = await _state_of(broker, name)
        if state is None:
            found.append(warning("queues", f"{name} does not exist", "the next API or executor that starts creates it"))
            continue
        found.append(await _compare(broker, name, arguments))
        if name == topology.queue and not state.consumer_count:
            found.append(
                error("queues", f"nobody takes from {name}; {state.message_count} turns wait", "start executors")
            )
        if name == topology.dead_queue and state.message_count:
            found.append(
                warning("dead", f"{state.message_count} dead letters in {name}", "see docs/runbook.md, Dead letters")
            )


async def _state_of(broker: BrokerConnection, name: str) -> Any:
    """Returns the answer to a passive declaration, or None if there is no such queue."""
    async with answered():
        try:
            async with broker.connection.channel() as channel:
                rpc = await channel.get_underlay_channel()
                return await rpc.queue_declare(name, passive=True)
        except (ChannelNotFoundEntity, aiormq.exceptions.ChannelNotFoundEntity):
            return None


async def _compare(broker: BrokerConnection, name: str, arguments: dict[str, Any]) -> Finding:
    """Declares an existing queue again, which changes nothing: the broker refuses if its arguments differ."""
    async with answered():
        try:
            async with broker.connection.channel() as channel:
                await channel.declare_queue(name, durable=True, arguments=arguments)
        except ChannelPreconditionFailed as differs:
            said = str(differs).partition(" for queue")[0]
            return warning(
                "queues",
                f"{name} has other arguments: {said}",
                "to change them, wait until the queue is empty and delete it",
            )
    return ok("queues", f"{name} has the arguments that are declared")
