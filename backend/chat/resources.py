"""The object with all connections of a process. `backend.resources.open_resources` creates it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from redis.asyncio import Redis

from backend.chat.keys import READY_TTL, ready_key
from backend.chat.leases.claim_activity import ClaimActivity
from backend.chat.leases.liveness import Liveness
from backend.chat.leases.locks import Locks
from backend.chat.queue.outbox import Outbox
from backend.chat.queue.turn_queue import TurnQueue
from backend.chat.streams.event_feed import Feed
from backend.chat.streams.hub import Hub
from backend.chat.streams.streams import Streams
from backend.chat.streams.writer import Flusher
from backend.config import Settings
from backend.files.reading import FileReader
from backend.files.storage import FileStorage
from backend.ids import ExecutorId
from backend.logs import why_away, words_of_redis
from backend.postgres import Database
from backend.tracing import Traces

READY_LIMIT = 2.0
"""Seconds within which PostgreSQL and Redis must answer, or this process is not ready."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DependencyStates:
    """The state of a process's dependencies by name, and the reasons of those that do not work, where one is known.

    A reason is a word (`blocked`) or what Redis says (`OOM command not allowed …`).
    """

    checks: dict[str, bool]
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True)
class Resources:
    """The connections of a process. `me` is its id as the owner of tasks, `claiming` its work that may claim some."""

    settings: Settings
    me: ExecutorId
    database: Database
    redis: Redis
    liveness: Liveness
    streams: Streams
    flusher: Flusher
    hub: Hub
    feed: Feed
    turn_queue: TurnQueue
    outbox: Outbox
    locks: Locks
    files: FileStorage
    file_reader: FileReader
    claiming: ClaimActivity = field(default_factory=ClaimActivity)
    traces: Traces | None = None

    async def state(self) -> DependencyStates:
        """Returns whether each dependency works now. Takes at most READY_LIMIT seconds.

        Writes one key with a TTL to Redis, which answers a PING even while it refuses all writes.
        """
        writing = self.redis.set(ready_key(self.me), b"", ex=READY_TTL)
        no_postgres, no_redis = await asyncio.gather(_failure_of(self._measure_skew()), _failure_of(writing))
        checks = {
            "postgres": no_postgres is None,
            "redis": no_redis is None,
            "hub": self.hub.healthy,
            "turns": self.turn_queue.healthy,
            "clock": not self.liveness.skew.too_large,
        }
        reasons = {"redis": words_of_redis(no_redis), "turns": self.turn_queue.trouble}
        return DependencyStates(checks, {name: reason for name, reason in reasons.items() if reason is not None})

    def report_to(self, *, pool_wait: Callable[[float], None], appended: Callable[[float], None]) -> None:
        """Sets the callbacks that get the seconds of each wait for a connection to PostgreSQL, and of each batch of
        chunks.
        """
        self.database.on_wait = pool_wait
        self.flusher.on_appended = appended

    async def _measure_skew(self) -> None:
        with self.liveness.skew.measured() as reading:
            reading.clock = await self.database.clock()


async def _failure_of(question: Awaitable[object]) -> Exception | None:
    """Returns the error of a probe, or None if it was answered."""
    try:
        async with asyncio.timeout(READY_LIMIT):
            await question
    except Exception as error:  # noqa: BLE001 - the boundary of a probe: any error means that there is no answer
        logger.warning("not ready: a dependency did not answer", extra={"error": why_away(error)})
        return error
    return None
