"""Takes outcomes from `chat:completions` and applies them, for as long as the process lives."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from redis.exceptions import RedisError

from backend.chat.completing import complete_operation
from backend.chat.completions import READ_WAITS, Completion, Completions, Entry, Refused
from backend.chat.flows import House
from backend.errors import AlreadyCompleted, OperationGone, OperationNotFound, Unavailable
from backend.logs import Trouble, why_away
from backend.redis import open_waiting_redis
from backend.standing import start_standing

AT_ONCE = 8
DELIVERIES = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
UNHEARD_LIMIT = 10.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoopPace:
    """Seconds: after which a pending entry is taken from whoever had it, and between two looks for such."""

    stale_after: float = 60.0
    look_every: float = 15.0


class CompletionLoop:
    """`running` it is a standing job: it begins again by itself. `healthy`: it has read the stream a moment ago."""

    def __init__(self, house: House, completions: Completions, pace: LoopPace) -> None:
        self._house = house
        self._completions = completions
        self._pace = pace
        self._read_at = float("-inf")
        self._looked_at = float("-inf")
        self._caught_up = False
        self._stopping = False
        self._up = asyncio.Event()
        self._stopped = asyncio.Event()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._trouble = Trouble(logger, "completions not read")

    @property
    def healthy(self) -> bool:
        return time.monotonic() - self._read_at < UNHEARD_LIMIT

    @classmethod
    @asynccontextmanager
    async def running(cls, house: House, consumer: str, pace: LoopPace = LoopPace()) -> AsyncIterator[CompletionLoop]:
        """`consumer` is this process's name in the group: the same after a restart, and nobody else's."""
        async with open_waiting_redis(house.settings.redis_dsn, longest_wait=READ_WAITS, pool_size=2) as waiting:
            completions = Completions(house.redis, waiting, consumer, stale_after=pace.stale_after)
            loop = cls(house, completions, pace)
            job = start_standing(loop._run, "completions")
            try:
                with suppress(TimeoutError):  # comes up without Redis too, unhealthy
                    async with asyncio.timeout(READ_WAITS):
                        await loop._up.wait()
                yield loop
            finally:
                loop._stopping = True  # a read is not cancelled: what it brings would stay pending
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
                self._trouble.met(why_away(error))
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, no secret
                pause = min(2 * pause, LONGEST_PAUSE)
        self._stopped.set()

    async def _round(self) -> None:
        if not self._caught_up:
            await self._completions.make_group()
            async for page in self._completions.ours():
                await self._apply_all(page)
            self._caught_up = True
        self._read_at = time.monotonic()
        self._up.set()
        if time.monotonic() - self._looked_at > self._pace.look_every:
            self._looked_at = time.monotonic()
            async for page in self._completions.stale():
                await self._apply_all(page)
            await self._completions.tidy()
        await self._apply_all(await self._completions.new())

    async def _apply_all(self, entries: Sequence[Entry]) -> None:
        """Applies a page and takes off what is done; what was refused stays pending, and comes again.

        Applies the entries of one operation in their order, because the first outcome wins, and operations at once."""
        done: list[Entry] = []
        of_operation: dict[str, list[Entry]] = {}
        for entry in entries:
            of_operation.setdefault(_operation_in(entry), []).append(entry)
        jobs = (self._apply_in_order(group, done) for group in of_operation.values())
        failures = await asyncio.gather(*jobs, return_exceptions=True)
        await self._completions.ack(done)
        for failure in failures:
            if isinstance(failure, BaseException):
                raise failure
        self._read_at = time.monotonic()  # a long backlog is no trouble

    async def _apply_in_order(self, entries: Sequence[Entry], done: list[Entry]) -> None:
        for entry in entries:
            if await self._apply(entry):
                done.append(entry)

    async def _apply(self, entry: Entry) -> bool:
        async with self._room:
            try:
                await self._complete(Completion.parse(entry.data))
            except (AlreadyCompleted, OperationGone) as late:
                logger.warning("completion changes nothing", extra={"entry": entry.id, "why": late.code})
            except OperationNotFound:
                return await self._refuse(entry, "unknown operation")
            except Refused as why:
                return await self._refuse(entry, str(why))
            except Exception as error:  # the boundary of the loop: one entry must not stop the others
                if isinstance(error, RedisError | Unavailable):
                    raise
                logger.exception("completion not applied", extra={"entry": entry.id})
                return await self._refuse(entry, type(error).__name__)
            return True

    async def _complete(self, completion: Completion) -> None:
        """Waits while Postgres is away, and counts nothing."""
        pause = FIRST_PAUSE
        while True:
            try:
                done = await complete_operation(self._house, completion.operation_id, completion.outcome)
                break
            except Unavailable:
                if self._stopping:
                    raise
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, no secret
                pause = min(2 * pause, LONGEST_PAUSE)
        if done.next_turn is not None:
            await self._house.outbox.publish(done.next_turn)

    async def _refuse(self, entry: Entry, reason: str) -> bool:
        logger.warning("completion refused", extra={"entry": entry.id, "why": reason})
        if await self._completions.deliveries(entry) >= DELIVERIES:
            await self._completions.bury(entry, reason)
        return False


def _operation_in(entry: Entry) -> str:
    """Returns the id of the operation that an entry names, or the entry's own id when it cannot be read."""
    try:
        return Completion.parse(entry.data).operation_id
    except Refused:
        return entry.id.decode()
