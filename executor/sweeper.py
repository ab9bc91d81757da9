"""The backstop: turns that nobody published, and running ones whose owner is dead, go (back) to the queue.

One executor at a time sweeps, by a Postgres advisory lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from redis.exceptions import RedisError

from backend.chat import executors, tasks
from backend.chat.flows import House, publish_turn
from backend.chat.models import Task, Turn
from backend.errors import Unavailable
from backend.ids import ExecutorId
from executor.ownership import is_dead

SWEEP_EVERY = 1.0
UNPUBLISHED_AFTER = 5.0
BATCH = 100
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
            running = await tasks.running_tasks(c, limit=BATCH)
        for turn in forgotten:
            logger.warning("turn was not taken, published again", extra={"task_id": turn.task_id})
            await publish_turn(self._house, turn)
        await self._look_after(running)

    async def _look_after(self, running: list[Task]) -> None:
        """A turn whose owner was dead at two sweeps in a row is published: its own copy may never come again."""
        owners = {task.owner for task in running if task.owner is not None and task.owner != self._house.me}
        dead = {owner for owner in owners if await is_dead(self._house, owner)}
        for task in running:
            if task.owner in dead & self._suspects:
                logger.warning("owner is dead, turn published again", extra={"task_id": task.id})
                await publish_turn(self._house, Turn(task.id, task.session_id))
        self._suspects = dead
