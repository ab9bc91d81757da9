"""The only place where anything is connected."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from backend.chat import tasks
from backend.chat.feed import Feed
from backend.chat.following import Hub
from backend.chat.liveness import Liveness
from backend.chat.locks import Locks
from backend.chat.models import Task
from backend.chat.outbox import Outbox
from backend.chat.queues import open_turn_queue
from backend.chat.streams import Streams
from backend.chat.turns import TurnQueue
from backend.chat.writing import Flusher
from backend.config import Settings
from backend.failpoints import arm
from backend.ids import ExecutorId, TaskId, new_executor_id
from backend.migrating import require_migrated
from backend.postgres import Database
from backend.redis import open_redis

READY_LIMIT = 2.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything a process is connected to. `me` names it as an owner of tasks."""

    settings: Settings
    me: ExecutorId
    database: Database
    redis: Redis
    liveness: Liveness
    streams: Streams
    flusher: Flusher
    hub: Hub
    feed: Feed
    turns: TurnQueue
    outbox: Outbox
    locks: Locks

    async def state(self) -> dict[str, bool]:
        """What answers now, by name; takes at most READY_LIMIT seconds and writes nothing."""
        postgres, redis = await asyncio.gather(_answers(self.database.ping()), _answers(self.redis.ping()))
        return {"postgres": postgres, "redis": redis, "hub": self.hub.healthy, "turns": self.turns.healthy}


async def _answers(question: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(READY_LIMIT):
            await question
    except Exception as error:  # noqa: BLE001 - the boundary of a probe: whatever is wrong, it does not answer
        logger.warning("not ready", extra={"why": repr(error)})
        return False
    return True


@asynccontextmanager
async def open_resources(settings: Settings, me: ExecutorId | None = None) -> AsyncIterator[Resources]:
    """Connects, and disconnects in the reverse order; `me` is a new name unless it is given. Raises ConfigError, also
    for a database that is not migrated, or Unavailable when a server is away."""
    arm(settings.failpoints)
    me = me or new_executor_id()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.open(settings.database_dsn, size=settings.db_pool_size))
        await require_migrated(database)
        redis = await stack.enter_async_context(open_redis(settings.redis_dsn, pool_size=settings.redis_pool_size))
        liveness = Liveness(redis)
        streams = Streams(redis, settings.stream_ttl)
        flusher = await stack.enter_async_context(Flusher(redis, ttl=settings.stream_ttl))
        turns = await stack.enter_async_context(open_turn_queue(settings, redis, liveness, me))
        outbox = await stack.enter_async_context(Outbox(turns, database))

        async def look_up(task_ids: Sequence[TaskId]) -> Sequence[Task]:
            async with database.connection() as c:
                return await tasks.find_tasks(c, task_ids)

        hub = await stack.enter_async_context(Hub(settings.redis_dsn, streams, look_up))
        feed = await stack.enter_async_context(Feed(redis))
        locks = Locks(redis, settings.session_lock_ttl)
        yield Resources(settings, me, database, redis, liveness, streams, flusher, hub, feed, turns, outbox, locks)
