"""The loop that reads outcomes from the Redis Stream `chat:completions` and applies them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from redis.exceptions import RedisError

from backend.chat.flows.complete import complete_operation
from backend.chat.queue.completions import READ_WAITS, Completion, CompletionEntry, Completions, EntryRefused
from backend.chat.resources import Resources
from backend.errors import AlreadyCompleted, OperationGone, OperationNotFound, Unavailable
from backend.jitter import jitter
from backend.logs import Trouble, why_away
from backend.redis import open_waiting_redis
from backend.supervised import start_supervised

MAX_CONCURRENT = 8
"""Outcomes that are applied at the same time."""
MAX_DELIVERIES = 5
"""Deliveries after which a refused entry becomes a dead letter."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two attempts while Redis or Postgres is unavailable."""
HEALTHY_FOR_S = 10.0
"""Seconds for which the loop counts as healthy after it has read the stream."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoopTimings:
    """The timings of the loop, in seconds."""

    stale_after: float = 60.0
    """The time after which a pending entry is claimed from another consumer."""
    claim_every: float = 15.0
    """The time between two searches for these entries."""


class CompletionLoop:
    """Applies completions as long as `running` is open. A failure restarts the loop.

    `healthy` is True if the stream was read within the last HEALTHY_FOR_S seconds.
    """

    def __init__(
        self,
        resources: Resources,
        completions: Completions,
        timings: LoopTimings,
        on_dead: Callable[[str], None] | None = None,
    ) -> None:
        self._resources = resources
        self._completions = completions
        self._timings = timings
        self._on_dead = on_dead
        self._read_at = float("-inf")
        self._claimed_at = float("-inf")
        self._caught_up = False
        self._stopping = False
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._trouble = Trouble(logger, "completions cannot be read")

    @property
    def healthy(self) -> bool:
        return time.monotonic() - self._read_at < HEALTHY_FOR_S

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        resources: Resources,
        consumer: str,
        timings: LoopTimings = LoopTimings(),
        on_dead: Callable[[str], None] | None = None,
    ) -> AsyncIterator[CompletionLoop]:
        """Runs the loop. `consumer` names this process in the consumer group.

        The name must be unique and stay the same after a restart, so that the process resumes its pending entries.
        `on_dead` gets the reason of each entry that becomes a dead letter.
        """
        async with open_waiting_redis(resources.settings.redis_dsn, longest_wait=READ_WAITS, pool_size=2) as waiting:
            completions = Completions(resources.redis, waiting, consumer, stale_after=timings.stale_after)
            loop = cls(resources, completions, timings, on_dead)
            job = start_supervised(loop._run, "completions")
            try:
                with suppress(TimeoutError):  # the process starts even without Redis, but is not healthy
                    async with asyncio.timeout(READ_WAITS):
                        await loop._started.wait()
                yield loop
            finally:
                loop._stopping = True  # a read is not cancelled, because its entries would stay pending
                with suppress(TimeoutError):
                    async with asyncio.timeout(2 * READ_WAITS):
                        await loop._stopped.wait()
                job.cancel()
                await asyncio.gather(job, return_exceptions=True)
                with suppress(RedisError, TimeoutError):
                    async with asyncio.timeout(READ_WAITS):
                        await completions.leave()

    async def _run(self) -> None:
        self._caught_up = False
        pause = FIRST_PAUSE
        while not self._stopping:
            try:
                await self._round()
                pause = FIRST_PAUSE
                self._trouble.over()
            except (RedisError, OSError, Unavailable) as error:
                self._caught_up = False
                wait = jitter(pause)
                self._trouble.met(why_away(error), retry_in=round(wait, 2))
                await asyncio.sleep(wait)
                pause = min(2 * pause, LONGEST_PAUSE)
        self._stopped.set()

    async def _round(self) -> None:
        if not self._caught_up:
            await self._completions.make_group()
            async for page in self._completions.pending():
                await self._apply_all(page)
            self._caught_up = True
        self._read_at = time.monotonic()
        self._started.set()
        if time.monotonic() - self._claimed_at > self._timings.claim_every:
            self._claimed_at = time.monotonic()
            async for page in self._completions.stale():
                await self._apply_all(page)
            await self._completions.tidy()
        await self._apply_all(await self._completions.new())

    async def _apply_all(self, entries: Sequence[CompletionEntry]) -> None:
        """Applies a page of entries and acknowledges those that are done. Refused entries stay pending and come again.

        Different operations are handled at the same time. The entries of one operation are applied in their order,
        because the first outcome wins.
        """
        done: list[CompletionEntry] = []
        of_operation: dict[str, list[CompletionEntry]] = {}
        for entry in entries:
            of_operation.setdefault(_operation_in(entry), []).append(entry)
        jobs = (self._apply_in_order(group, done) for group in of_operation.values())
        failures = await asyncio.gather(*jobs, return_exceptions=True)
        await self._completions.ack(done)
        for failure in failures:
            if isinstance(failure, BaseException):
                raise failure
        self._read_at = time.monotonic()  # a long backlog does not make the loop unhealthy

    async def _apply_in_order(self, entries: Sequence[CompletionEntry], done: list[CompletionEntry]) -> None:
        for entry in entries:
            if await self._apply(entry):
                done.append(entry)

    async def _apply(self, entry: CompletionEntry) -> bool:
        async with self._slots:
            try:
                await self._complete(Completion.parse(entry.data))
            except (AlreadyCompleted, OperationGone) as error:
                logger.warning("completion came too late", extra={"entry": entry.id, "error": error.code})
            except OperationNotFound:
                return await self._refuse(entry, "unknown operation")
            except EntryRefused as error:
                return await self._refuse(entry, str(error))
            except Exception as error:  # the loop's boundary: one entry must not stop the others
                if isinstance(error, RedisError | Unavailable):
                    raise
                logger.exception("completion could not be applied", extra={"entry": entry.id})
                return await self._refuse(entry, type(error).__name__)
            return True

    async def _complete(self, completion: Completion) -> None:
        """Applies one outcome. Retries while Postgres is unavailable, which does not count as a delivery."""
        pause = FIRST_PAUSE
        while True:
            try:
                done = await complete_operation(self._resources, completion.operation_id, completion.outcome)
                break
            except Unavailable:
                if self._stopping:
                    raise
                await asyncio.sleep(jitter(pause))
                pause = min(2 * pause, LONGEST_PAUSE)
        if done.next_turn is not None:
            await self._resources.outbox.publish(done.next_turn)

    async def _refuse(self, entry: CompletionEntry, reason: str) -> bool:
        logger.warning("completion was refused", extra={"entry": entry.id, "error": reason})
        if await self._completions.deliveries(entry) >= MAX_DELIVERIES:
            await self._completions.bury(entry, reason)
            if self._on_dead is not None:
                self._on_dead(reason)
        return False


def _operation_in(entry: CompletionEntry) -> str:
    """Returns the id of the entry's operation, or the entry's own id if the entry cannot be parsed."""
    try:
        return Completion.parse(entry.data).operation_id
    except EntryRefused:
        return entry.id.decode()
