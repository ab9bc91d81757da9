"""The turn queue over Redis alone: a stream with a consumer group, a stream of dead letters, a channel of wishes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from backend.chat.models import Turn
from backend.chat.redis_deliveries import (
    BODY,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    READ_WAITS,
    Clients,
    InHand,
    QueueKeys,
    Taker,
    WhoIsDead,
    read_dead,
    read_turn,
)
from backend.chat.turns import DeadTurn, Delivery, Wishes, encode_turn, encode_wish
from backend.errors import Unavailable
from backend.ids import ExecutorId, TaskId
from backend.logs import Trouble, why_away
from backend.redis import ANSWER_LIMIT, answered, open_waiting_redis

log = logging.getLogger(__name__)

FIRST_CONNECT_LIMIT = 3.0
LEAVE_LIMIT = READ_WAITS + ANSWER_LIMIT
S = TypeVar("S", bound=InHand)


@asynccontextmanager
async def open_redis_turns(
    dsn: str, redis: Redis, me: ExecutorId, dead: WhoIsDead, keys: QueueKeys | None = None
) -> AsyncIterator[RedisTurns]:
    """The queue as executor `me` takes from it; `dead` tells whose turns may be taken over. Connects on first use."""
    async with open_waiting_redis(dsn, longest_wait=READ_WAITS) as waiting:
        turns = RedisTurns(Clients(redis, waiting), me, dead, keys or QueueKeys())
        try:
            yield turns
        finally:
            await turns.close()


class RedisTurns:
    """A TurnQueue. At most one `consume()` of a queue may be open under one executor's name."""

    def __init__(self, clients: Clients, me: ExecutorId, dead: WhoIsDead, keys: QueueKeys) -> None:
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

    async def publish(self, turn: Turn) -> None:
        async with answered():
            await self._clients.quick.xadd(self._keys.turns, {BODY: encode_turn(turn)})

    async def wish_cancel(self, task_id: TaskId) -> None:
        try:
            async with answered():
                await self._clients.quick.publish(self._keys.cancel, encode_wish(task_id))
        except Unavailable:
            log.warning("cancel_wish_not_sent", extra={"task": task_id})

    @asynccontextmanager
    async def consume(self, slots: int) -> AsyncIterator[AsyncIterator[Delivery]]:
        read = partial(read_turn, self._keys.dead)
        async with self._taking(Taker(self._clients, self._keys.turns, self._me, self._dead, slots, read)) as turns:
            yield turns

    @asynccontextmanager
    async def dead_turns(self) -> AsyncIterator[AsyncIterator[DeadTurn]]:
        async with self._taking(Taker(self._clients, self._keys.dead, self._me, self._dead, 1, read_dead)) as letters:
            yield letters

    @asynccontextmanager
    async def _taking(self, taker: Taker[S]) -> AsyncIterator[AsyncIterator[S]]:
        async with self._doing(taker.run(), taker.up) as job:
            try:
                await _first_up(taker.up)
                yield taker.intake
            finally:
                for delivery in taker.intake.close():
                    await delivery.hand_back()
                await asyncio.wait({job}, timeout=LEAVE_LIMIT)
                await taker.forget()

    @asynccontextmanager
    async def cancel_wishes(self) -> AsyncIterator[AsyncIterator[TaskId]]:
        wishes, up = Wishes(), asyncio.Event()
        async with self._doing(self._listen(wishes, up), up) as job:
            try:
                await _first_up(up)
                yield wishes
            finally:
                job.cancel()
                await asyncio.wait({job})

    @asynccontextmanager
    async def _doing(self, work: Coroutine[Any, Any, None], up: asyncio.Event) -> AsyncIterator[asyncio.Task[None]]:
        """Runs work beside what is inside; it counts for `healthy` there. Does not end it."""
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        self._watched.add(up)
        try:
            yield job
        finally:
            self._watched.discard(up)

    async def _listen(self, wishes: Wishes, up: asyncio.Event) -> None:
        pause = FIRST_PAUSE
        trouble = Trouble(log, "cancel wishes not heard")
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
                            wishes.offer(message["data"])
            except (RedisError, OSError) as error:
                up.clear()
                trouble.met(why_away(error))
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  # jitter, no secret
                pause = min(2 * pause, LONGEST_PAUSE)


async def _first_up(up: asyncio.Event) -> None:
    """Waits a moment; who is not up then goes on trying."""
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_CONNECT_LIMIT):
            await up.wait()
