"""The backstop: turns that nobody published, and running ones whose owner is dead, go (back) to the queue; operations
whose time is over are given up.

One executor at a time sweeps, by a Postgres advisory lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable

from redis.exceptions import RedisError

from backend.chat import executors, operations, tasks
from backend.chat.completing import Completed, complete_operation, expire_operation
from backend.chat.flows import House
from backend.chat.outcomes import ABANDONED
from backend.errors import AlreadyCompleted, OperationGone, OperationNotFound, TaskNotFound, Unavailable
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
            owners = await tasks.owners(c) | await operations.runners(c)
            overdue = await operations.overdue_operations(c, BATCH)
            await executors.prune(c, older_than=FORGOTTEN_AFTER)
        for turn in forgotten:
            logger.warning("turn was not taken, published again", extra={"task_id": turn.task_id})
        await asyncio.gather(*(self._house.outbox.publish(turn) for turn in forgotten))
        await self._look_after(owners - {self._house.me})
        for operation in overdue:
            logger.warning("operation is over its time", extra={"operation_id": operation.id})
            await self._end(expire_operation(self._house, operation))

    async def _end(self, completing: Awaitable[Completed | None]) -> None:
        """An outcome that does not come: the conversation is told so."""
        with contextlib.suppress(AlreadyCompleted, OperationGone, OperationNotFound, TaskNotFound):
            done = await completing
            if done is not None and done.next_turn is not None:
                await self._house.outbox.publish(done.next_turn)

    async def _look_after(self, owners: set[ExecutorId]) -> None:
        """What an owner holds that was dead at two sweeps in a row is published: its copies may never come again."""
        verdicts = await asyncio.gather(*(is_dead(self._house, owner) for owner in owners))
        dead = {owner for owner, is_so in zip(owners, verdicts, strict=True) if is_so}
        for owner in dead & self._suspects:
            async with self._house.database.connection() as c:
                held = await tasks.release_claims(c, owner, crashed=True)
                abandoned = await operations.operations_run_by(c, owner)
            for turn in held:
                logger.warning("owner is dead, turn published again", extra={"task_id": turn.task_id})
                await self._house.outbox.publish(turn)
            for operation in abandoned:
                await self._end(complete_operation(self._house, operation.id, ABANDONED))
        self._suspects = dead
