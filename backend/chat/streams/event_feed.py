"""The event feed: hints of what happens in a session, for pages that do not poll.

Hints are neither kept nor sent again. A listener begins with a snapshot from Postgres, and takes another one when it
may have missed a hint.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from backend.chat.keys import ASSIGNED_CHANNEL, session_feed, user_feed
from backend.chat.models import Json
from backend.chat.protocol.chunks import ascii_json
from backend.ids import SessionId, UserId
from backend.logs import why_away
from backend.redis_cluster import announcing
from backend.supervised import start_supervised

MAX_WAITING = 10_000
"""Hints that wait to be published; the oldest are dropped first."""
MAX_IN_FLUSH = 500
"""Hints in one round trip."""
FLUSH_LIMIT = 2.0
"""Seconds for one round trip."""
logger = logging.getLogger(__name__)


class Hint(StrEnum):
    """The kinds of events that the feed tells pages."""

    TURN_STARTED = "turn-started"
    TURN_FINISHED = "turn-finished"
    OPERATION_STARTED = "operation-started"
    OPERATION_PROGRESS = "operation-progress"
    OPERATION_FINISHED = "operation-finished"
    TITLE_CHANGED = "title-changed"
    PLACE_CHANGED = "place-changed"
    BRANCH_CHANGED = "branch-changed"
    SESSION_DELETED = "session-deleted"


class Feed:
    """Publishes hints to the listeners of all processes. `async with` it for the life of the process."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._job: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._job = start_supervised(self._run, "feed")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._job is not None:
            self._job.cancel()
            await asyncio.gather(self._job, return_exceptions=True)
        await self._flush()

    def publish(self, hint: Hint, session_id: SessionId, user_id: UserId | None, **facts: Json) -> None:
        """Publishes a hint later, and returns at once. Hints that Redis does not take are lost."""
        payload = ascii_json({"type": hint.value, "session_id": session_id, **facts})
        self._waiting.append((session_feed(session_id), payload))
        if user_id is not None:
            self._waiting.append((user_feed(user_id), payload))
        self._wake.set()

    def announce_assigned(self, session_id: SessionId) -> None:
        """Tells all API processes that a session has been assigned to a user, as `publish` does."""
        self._waiting.append((ASSIGNED_CHANNEL, session_id.encode()))
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._flush()

    async def _flush(self) -> None:
        taken = [self._waiting.popleft() for _ in range(min(MAX_IN_FLUSH, len(self._waiting)))]
        if not taken:
            return
        pipeline: Any = self._redis.pipeline(transaction=False)
        for channel, payload in taken:
            pipeline.execute_command(announcing(self._redis), channel, payload)
        try:
            async with asyncio.timeout(FLUSH_LIMIT):
                await pipeline.execute()
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            logger.warning("hints were lost", extra={"count": len(taken), "error": why_away(error)})
