"""Rigs for the two turn queues, each with names of its own and behind a proxy that can fail."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

import aio_pika
from aiormq.abc import AbstractChannel
from redis.asyncio import Redis
from yarl import URL

from backend.chat.models import Turn
from backend.chat.queue.rabbitmq import open_rabbit_turns
from backend.chat.queue.rabbitmq_consumer import message_of
from backend.chat.queue.redis import open_redis_turns
from backend.chat.queue.redis_consumer import BODY, QueueKeys
from backend.chat.queue.turn_queue import TurnQueue
from backend.errors import Unavailable
from backend.ids import ExecutorId, SessionId, TaskId
from backend.rabbitmq import Topology
from backend.redis import open_redis
from tests.servers.proxy import FaultProxy
from tests.speed import limit

SOON = limit(20)
"""Seconds within which an expected event must happen."""
T = TypeVar("T")


def new_turn() -> Turn:
    return Turn(TaskId(str(uuid.uuid4())), SessionId(str(uuid.uuid4())))


async def published(queue: TurnQueue, turn: Turn) -> bool:
    """Publishes a turn. Returns False if the queue is unavailable."""
    try:
        await queue.publish(turn)
    except Unavailable:
        return False
    return True


async def soon(awaited: Awaitable[T], within: float = SOON) -> T:
    async with asyncio.timeout(within):
        return await awaited


async def until(is_so: Callable[[], Awaitable[bool]], within: float = SOON) -> None:
    """Waits until `is_so` returns True. Raises TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not await is_so():
            await asyncio.sleep(0.02)


async def until_healthy(queue: TurnQueue, within: float = SOON) -> None:
    async def healthy() -> bool:
        return queue.healthy

    await until(healthy, within)


class Rig(Protocol):
    proxy: FaultProxy

    def open(self, name: str) -> AbstractAsyncContextManager[TurnQueue]:
        """Opens the queue for the process `name`. The process dies at the end of the block."""

    async def put(self, body: bytes) -> None:
        """Adds any bytes to the queue of turns."""


class RabbitRig:
    def __init__(self, dsn: str, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.topology = Topology().prefixed(f"test-{uuid.uuid4().hex[:8]}-")
        self.dsn = dsn
        self._through_proxy = str(URL(dsn).with_host(proxy.host).with_port(proxy.port))

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[TurnQueue]:
        async with open_rabbit_turns(self._through_proxy, self.topology) as queue:
            yield queue

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """Opens a channel for the test that bypasses the proxy."""
        connection = await aio_pika.connect(self.dsn)
        async with connection, connection.channel() as channel:
            yield await channel.get_underlay_channel()

    async def put(self, body: bytes) -> None:
        async with self.channel() as channel:
            properties = message_of(body, None).properties
            await channel.basic_publish(
                body, exchange=self.topology.execution, routing_key=self.topology.routing_key, properties=properties
            )

    async def consumers(self) -> int:
        async with self.channel() as channel:
            return (await channel.queue_declare(self.topology.queue, passive=True)).consumer_count or 0

    async def remove(self) -> None:
        async with self.channel() as channel:
            for queue in (self.topology.queue, self.topology.dead_queue):
                await channel.queue_delete(queue)
            for exchange in (self.topology.execution, self.topology.dead, self.topology.cancel):
                await channel.exchange_delete(exchange)


class RedisRig:
    def __init__(self, dsn: str, proxy: FaultProxy) -> None:
        self.proxy = proxy
        mark = uuid.uuid4().hex[:8]
        self.keys = QueueKeys(*(f"test:{{{mark}}}:{name}" for name in ("turns", "dead", "cancel")))
        self.dsn = dsn
        self.dead: set[ExecutorId] = set()
        self.looks = 0
        """The number of calls of `who_is_dead`."""
        self.through_proxy = proxy.dsn

    async def who_is_dead(self, ids: Sequence[ExecutorId]) -> set[ExecutorId]:
        self.looks += 1
        return self.dead.intersection(ids)

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[TurnQueue]:
        me = ExecutorId(name)
        async with open_redis(self.through_proxy, pool_size=4) as redis:
            async with open_redis_turns(self.through_proxy, redis, me, self.who_is_dead, self.keys) as queue:
                yield queue
            self.dead.add(me)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """Opens a client for the test that bypasses the proxy."""
        async with open_redis(self.dsn, pool_size=4) as redis:
            yield redis

    async def put(self, body: bytes) -> None:
        async with self.client() as redis:
            await redis.xadd(self.keys.turns, {BODY: body})

    async def remove(self) -> None:
        async with self.client() as redis:
            await redis.delete(self.keys.turns, self.keys.dead)


@asynccontextmanager
async def rig_for(kind: str, dsn: str) -> AsyncIterator[RabbitRig | RedisRig]:
    async with FaultProxy.before(dsn) as proxy:
        rig = RabbitRig(dsn, proxy) if kind == "rabbitmq" else RedisRig(dsn, proxy)
        yield rig
        await rig.remove()
