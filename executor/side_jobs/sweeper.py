"""Side job that repairs what dead processes left behind, every one or two seconds.

It publishes turns that the queue may not have, and turns whose owner is dead. It ends operations whose deadline has
passed or whose runner is dead, leaves the remote tasks of the dead to others, and has the service of silent operations
asked again. It adds new messages to the search, and wakes the sender of webhooks and the deletion of files. An advisory
lock in Postgres lets one executor sweep at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from backend.chat.flows.complete import Completed, complete_operation, expire_operation
from backend.chat.flows.delete import delete_expired
from backend.chat.flows.start import announce_start
from backend.chat.models import Turn
from backend.chat.outcomes import ABANDONED, Operation
from backend.chat.resources import Resources
from backend.chat.store import executors, operations, remote_tasks, sessions, tasks
from backend.chat.store.derived import search
from backend.chat.store.derived.search import Unsearched
from backend.chat.store.tool_servers import clients, sign_ins
from backend.chat.store.webhooks import deliveries
from backend.errors import AlreadyCompleted, OperationGone, OperationNotFound, TaskNotFound, Unavailable
from backend.ids import ExecutorId, SessionId
from backend.postgres import Connection
from executor.metrics import ExecutorMetrics
from executor.side_jobs.census import CensusTaker
from executor.side_jobs.file_sweep import FileSweep
from executor.side_jobs.silent_operations import SilentOperations
from executor.side_jobs.webhook_sender import WebhookSender
from executor.turns.ownership import is_dead

SWEEP_EVERY, IDLE_SWEEP_EVERY = 1.0, 2.0
"""Seconds between two sweeps. The second value counts after a sweep that found no work and no running task."""
UNPUBLISHED_AFTER = 4.0
"""Seconds after which a turn that is neither published nor claimed is published by the sweeper: six at most, even after
an idle sweep.
"""
BATCH = 500
RETENTION_EVERY, RETENTION_FOUND, RETENTION_BATCH = 600.0, 1_000, 50
"""Seconds between two searches for expired sessions, the sessions that one finds at most, and those that one sweep
deletes at most. An index finds the sessions with an end of their own; with RETENTION_DAYS, the search for the others
reads every session, 0.8 s for a million.
"""
SEARCH_FOR, SEARCH_SESSIONS, SEARCH_BATCH = 0.3, 16, 200
"""Seconds in which one sweep adds messages to the search, the sessions whose messages are added in one statement, and
the messages of each that are added at a time.
"""
MISSED_EVERY, MISSED_FOUND = 3600.0, 10_000
"""Seconds between two searches for messages that an older version stored without telling the search, and the sessions
that each finds at most. Each reads every session.
"""
PRUNE_AFTER = 3600.0
"""Seconds without a beat after which an executor's row is deleted."""
PRUNE_EVERY, PRUNE_BATCH = 60.0, 10_000
"""Seconds between two deletions of these rows and of old webhook deliveries, and the most deliveries of each."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DueRows:
    """The rows that one sweep has to act on."""

    unpublished: Sequence[Turn]
    owners: set[ExecutorId]
    overdue: Sequence[Operation]
    unsearched: Sequence[Unsearched]
    webhooks_due: bool

    def __bool__(self) -> bool:
        return bool(self.unpublished or self.owners or self.overdue or self.unsearched or self.webhooks_due)


class Sweeper:
    """The sweeper of one executor. It remembers which owners were dead at the last sweep."""

    def __init__(
        self,
        resources: Resources,
        silent: SilentOperations | None = None,
        metrics: ExecutorMetrics | None = None,
        webhooks: WebhookSender | None = None,
        files: FileSweep | None = None,
    ) -> None:
        self._resources = resources
        self._silent = silent
        self._webhooks = webhooks
        self._metrics = metrics or ExecutorMetrics()
        self._census = CensusTaker(resources)
        self._metrics.watch_census(lambda: self._census.newest)
        self._suspects: set[ExecutorId] = set()
        self._idle = False
        self._next_retention = 0.0
        self._expired: list[SessionId] = []
        self._files = files
        self._next_prune = 0.0
        self._next_missed = 0.0

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            await asyncio.sleep(IDLE_SWEEP_EVERY if self._idle else SWEEP_EVERY)
            self._idle = False
            try:
                async with self._resources.database.connection() as c, executors.sweeping(c) as is_sweeper:
                    if is_sweeper:
                        await self._sweep(await self._find(c))
                self._metrics.count_sweep("swept" if is_sweeper else "other_executor")
                await self._census.take_if_due()
            except (Unavailable, RedisError):  # the next sweep comes soon
                self._metrics.count_sweep("unavailable")

    async def _find(self, c: Connection) -> DueRows:
        """Reads in the transaction of the lock, so that a sweep that finds nothing is one transaction."""
        unpublished = await tasks.unpublished_tasks(c, older_than=UNPUBLISHED_AFTER, limit=BATCH)
        owners = await tasks.owners(c) | await operations.runners(c) | await remote_tasks.executors(c)
        overdue = await operations.overdue_operations(c, BATCH)
        unsearched = await search.unsearched_sessions(c, BATCH)
        return DueRows(unpublished, owners, overdue, unsearched, await deliveries.any_due(c))

    async def _sweep(self, found: DueRows) -> None:
        published = await asyncio.gather(*(self._resources.outbox.try_publish(turn) for turn in found.unpublished))
        for turn, done in zip(found.unpublished, published, strict=True):
            if done:  # while the queue is unavailable, the outbox logs it once
                logger.warning("turn was not claimed, published again", extra={"task_id": turn.task_id})
                self._metrics.count_repair("turn_published")
        await self._announce(found.unpublished)
        await self._release_claims_of_dead(found.owners - {self._resources.me})
        for operation in found.overdue:
            logger.warning("operation has passed its deadline", extra={"operation_id": operation.id})
            self._metrics.count_repair("operation_expired")
            await self._end(expire_operation(self._resources, operation))
        if self._silent is not None:
            self._metrics.count_repair("operation_asked_again", await self._silent.ask_again())
        if found.webhooks_due:
            await self._wake_webhooks()
        await self._mark_missed()
        await self._add_to_search(found.unsearched)
        await self._prune()
        more_expired = await self._delete_expired()
        if self._files is not None:
            self._files.wake()
        self._idle = not (found or more_expired)

    async def _wake_webhooks(self) -> None:
        if self._webhooks is not None:
            async with self._resources.database.connection() as c:
                await deliveries.set_aside(c, BATCH)
            self._webhooks.wake()

    async def _add_to_search(self, sessions_found: Sequence[Unsearched]) -> None:
        """Adds new messages to the search, for about SEARCH_FOR: the next sweeps go on."""
        end = time.monotonic() + SEARCH_FOR
        for first in range(0, len(sessions_found), SEARCH_SESSIONS):
            if time.monotonic() >= end:
                return
            async with self._resources.database.connection() as c:
                await search.add_entries(c, sessions_found[first : first + SEARCH_SESSIONS], SEARCH_BATCH)

    async def _mark_missed(self) -> None:
        if time.monotonic() >= self._next_missed:
            self._next_missed = time.monotonic() + MISSED_EVERY  # first: a failure must not repeat at once
            async with self._resources.database.connection() as c:
                await search.mark_missed_sessions(c, MISSED_FOUND)

    async def _prune(self) -> None:
        if time.monotonic() >= self._next_prune:
            async with self._resources.database.connection() as c:
                await executors.prune(c, older_than=PRUNE_AFTER)
                await deliveries.prune(c, PRUNE_BATCH)
                await remote_tasks.prune(c)
                await sign_ins.prune(c)
                await clients.prune(c)
            self._next_prune = time.monotonic() + PRUNE_EVERY

    async def _announce(self, turns: Sequence[Turn]) -> None:
        """Tells pages again that these turns are active: the process that failed to publish them may not have."""
        if not turns:
            return
        async with self._resources.database.connection() as c:
            found = await tasks.find_tasks(c, [turn.task_id for turn in turns])
        for task in found:
            if task.active and not task.request.temporary:
                announce_start(self._resources, task.session_id, task.user_id, task.id)

    async def _delete_expired(self) -> bool:
        """Deletes a batch of expired sessions. Returns whether more were found, which the next sweeps delete."""
        days = self._resources.settings.retention_days
        if not self._expired and time.monotonic() >= self._next_retention:
            async with self._resources.database.connection() as c:
                self._expired = await sessions.expired_sessions(c, days, RETENTION_FOUND)
            if len(self._expired) < RETENTION_FOUND:
                self._next_retention = time.monotonic() + RETENTION_EVERY
        batch, self._expired = self._expired[:RETENTION_BATCH], self._expired[RETENTION_BATCH:]
        deleted = await delete_expired(self._resources, days, batch)
        if deleted:
            self._metrics.count_repair("session_expired", deleted)
            logger.info("expired sessions were deleted", extra={"sessions": deleted})
        return bool(self._expired)

    async def _end(self, completing: Awaitable[Completed | None]) -> None:
        """Ends an operation whose outcome will not come, and publishes the turn that follows."""
        with contextlib.suppress(AlreadyCompleted, OperationGone, OperationNotFound, TaskNotFound):
            done = await completing
            if done is not None and done.next_turn is not None:
                await self._resources.outbox.publish(done.next_turn)

    async def _release_claims_of_dead(self, owners: set[ExecutorId]) -> None:
        """Publishes the turns of owners that were dead at two sweeps in a row, and ends the operations that they ran.

        The queue alone is not enough, because it may never deliver these turns again.
        """
        verdicts = await asyncio.gather(*(is_dead(self._resources, owner) for owner in owners))
        dead = {owner for owner, verdict in zip(owners, verdicts, strict=True) if verdict}
        for owner in dead & self._suspects:
            async with self._resources.database.connection() as c:
                released = await tasks.release_claims(c, owner, crashed=True)
                abandoned = await operations.operations_run_by(c, owner)
            for turn in released:
                logger.warning("owner is dead, turn published again", extra={"task_id": turn.task_id})
                self._metrics.count_repair("turn_of_dead_owner")
                await self._resources.outbox.publish(turn)
            self._metrics.count_repair("operation_abandoned", len(abandoned))
            for operation in abandoned:
                await self._end(complete_operation(self._resources, operation.id, ABANDONED))
            async with self._resources.database.connection() as c:
                await remote_tasks.release_of(c, owner)
        self._suspects = dead
