"""The backstop: turns that nobody published, and running ones whose owner is dead, go (back) to the queue.

One executor at a time sweeps, by a Postgres advisory lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from redis.exceptions import RedisError

from backend.chat import executors, tasks
from backend.chat.flows import House
from backend.errors import Unavailable
from backend.ids import ExecutorId
from executor.ownership import is_dead

SWEEP_EVERY = 1.0
UNPUBLISHED_AFTER = 5.0
BATCH = 500
FORGOTTEN_AFTER = 3600.0
logger = logging.getLogger(__name__)


class Sweeper:
    """`run` sweeps every second until cancelled."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._suspects: set[ExecutorId] = set()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            with contextlib.suppress(Unavailable, RedisError):  # the next sweep comes soon
                async with self._house.database.connection() as c, executors.sweeping(c) as ours:
                    if ours:
                        await self._sweep()

    async def _sweep(self) -> None:
        async with self._house.database.connection() as c:
            forgotten = await tasks.unpublished_tasks(c, older_than=UNPUBLISHED_AFTER, limit=BATCH)
            owners = await tasks.owners(c)
            await executors.prune(c, older_than=FORGOTTEN_AFTER)
        for turn in forgotten:
            logger.warning("turn was not taken, published again", extra={"task_id": turn.task_id})
        await asyncio.gather(*(self._house.outbox.publish(turn) for turn in forgotten))
        await self._look_after(owners - {self._house.me})

    async def _look_after(self, owners: set[ExecutorId]) -> None:
        """What an owner holds that was dead at two sweeps in a row is published: its copies may never come again."""
        verdicts = await asyncio.gather(*(is_dead(self._house, owner) for owner in owners))
        dead = {owner for owner, is_so in zip(owners, verdicts, strict=True) if is_so}
        for owner in dead & self._suspects:
            async with self._house.database.connection() as c:
                held = await tasks.release_claims(c, owner, crashed=True)
            for turn in held:
                logger.warning("owner is dead, turn published again", extra={"task_id": turn.task_id})
                await self._house.outbox.publish(turn)
        self._suspects = dead
