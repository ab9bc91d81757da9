"""The turn queue in Redis: a stream of turns, a stream of dead letters, and a channel of cancel requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from backend.chat.models import Turn
from backend.chat.queue.intake import CancelRequests
from backend.chat.queue.redis_consumer import (
    BODY,
    FIRST_PAUSE,
    INHERIT_LETTERS_EVERY,
    LONGEST_PAUSE,
    READ_WAITS,
    Clients,
    Consumer,
    FindDead,
    QueueKeys,
    UnsettledEntry,
    read_dead,
    read_turn,
)
from backend.chat.queue.turn_queue import DeadTurn, Delivery, encode_cancel, encode_turn
from backend.errors import Unavailable
from backend.ids import ExecutorId, TaskId
from backend.jitter import jitter
from backend.logs import Trouble, why_away
from backend.redis import ANSWER_LIMIT, answered, open_waiting_redis

logger = logging.getLogger(__name__)

FIRST_CONNECT_LIMIT = 3.0
"""Seconds to wait for the first connection; after that, connecting continues in the background."""
LEAVE_LIMIT = READ_WAITS + ANSWER_LIMIT
"""Seconds to wait for the last read of a consumer."""
S = TypeVar("S", bound=UnsettledEntry)


@asynccontextmanager
async def open_redis_turns(
    dsn: str, redis: Redis, me: ExecutorId, dead: FindDead, keys: QueueKeys | None = None
) -> AsyncIterator[RedisTurns]:
    """Opens the queue for executor `me`. Connects on first use.

    `dead` tells which of some executors are dead, so that their turns may be taken over.
    """
    async with open_waiting_redis(dsn, longest_wait=READ_WAITS) as waiting:
        turns = RedisTurns(Clients(redis, waiting), me, dead, keys or QueueKeys.of(redis))
        try:
            yield turns
        finally:
            await turns.close()


class RedisTurns:
    """A TurnQueue. One executor may have at most one open `consume()` of a queue."""

    def __init__(self, clients: Clients, me: ExecutorId, dead: FindDead, keys: QueueKeys) -> None:
        self._clients = clients
        self._me = me
        self._dead = dead
        self._keys = keys
        self._jobs: set[asyncio.Task[None]] = set()
        self._watched: set[asyncio.Event] = set()

    async def close(self) -> None:
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    @property
    def healthy(self) -> bool:
        return all(up.is_set() for up in self._watched)

    @property
    def trouble(self) -> str | None:
        return None

    async def publish(self, turn: Turn) -> None:
        async with answered():
            await self._clients.quick.xadd(self._keys.turns, {BODY: encode_turn(turn)})

    async def publish_cancel(self, task_id: TaskId) -> None:
        try:
            async with answered():
                await self._clients.quick.publish(self._keys.cancel, encode_cancel(task_id))
        except Unavailable:
            logger.warning("cancel request was not sent", extra={"task": task_id})

    @asynccontextmanager
    async def consume(self, slots: int) -> AsyncIterator[AsyncIterator[Delivery]]:
        read = partial(read_turn, self._keys.dead)
        async with self._consuming(
            Consumer(self._clients, self._keys.turns, self._me, self._dead, slots, read)
        ) as turns:
            yield turns

    @asynccontextmanager
    async def dead_turns(self) -> AsyncIterator[AsyncIterator[DeadTurn]]:
        async with self._consuming(
            Consumer(
                self._clients, self._keys.dead, self._me, self._dead, 1, read_dead, inherit_every=INHERIT_LETTERS_EVERY
            )
        ) as letters:
            yield letters

    @asynccontextmanager
    async def _consuming(self, consumer: Consumer[S]) -> AsyncIterator[AsyncIterator[S]]:
        async with self._doing(consumer.run(), consumer.up) as job:
            try:
                await _first_up(consumer.up)
                yield consumer.intake
            finally:
                for delivery in consumer.intake.close():
                    await delivery.hand_back()
                await asyncio.wait({job}, timeout=LEAVE_LIMIT)
                await consumer.forget()

    @asynccontextmanager
    async def cancel_requests(self) -> AsyncIterator[AsyncIterator[TaskId]]:
        requests, up = CancelRequests(), asyncio.Event()
        async with self._doing(self._listen(requests, up), up) as job:
            try:
                await _first_up(up)
                yield requests
            finally:
                job.cancel()
                await asyncio.wait({job})

    @asynccontextmanager
    async def _doing(self, work: Coroutine[Any, Any, None], up: asyncio.Event) -> AsyncIterator[asyncio.Task[None]]:
        """Starts `work` and yields its job. Until the block ends, `healthy` depends on `up`. Does not end the job."""
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        self._watched.add(up)
        try:
            yield job
        finally:
            self._watched.discard(up)

    async def _listen(self, requests: CancelRequests, up: asyncio.Event) -> None:
        pause = FIRST_PAUSE
        trouble = Trouble(logger, "cancel requests cannot be received")
        while True:
            try:
                async with self._clients.waiting.pubsub() as channel:
                    await channel.subscribe(self._keys.cancel)
                    while True:
                        message = await channel.get_message(timeout=READ_WAITS)
                        if message is not None and message["type"] == "subscribe":
                            up.set()
                            trouble.over()
                            pause = FIRST_PAUSE
                        elif message is not None:
                            requests.offer(message["data"])
            except (RedisError, OSError) as error:
                up.clear()
                wait = jitter(pause)
                trouble.met(why_away(error), retry_in=round(wait, 2))
                await asyncio.sleep(wait)
                pause = min(2 * pause, LONGEST_PAUSE)


async def _first_up(up: asyncio.Event) -> None:
    """Waits up to FIRST_CONNECT_LIMIT for `up`. Raises nothing."""
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_CONNECT_LIMIT):
            await up.wait()
