"""Opens everything that a process is connected to, in one place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from backend.chat.leases.liveness import Liveness
from backend.chat.leases.locks import Locks
from backend.chat.models import Task
from backend.chat.queue.open import open_turn_queue
from backend.chat.queue.outbox import Outbox
from backend.chat.resources import Resources
from backend.chat.store import tasks
from backend.chat.streams.event_feed import Feed
from backend.chat.streams.hub import Hub
from backend.chat.streams.streams import Streams
from backend.chat.streams.writer import Flusher
from backend.config import Settings
from backend.failpoints import arm
from backend.files.reading import FileReader
from backend.files.storage import FileStorage
from backend.ids import ExecutorId, TaskId, new_executor_id
from backend.migrating import require_migrated
from backend.postgres import Database
from backend.redis import open_redis, require_right_mode
from backend.tracing import Traces


@asynccontextmanager
async def open_resources(settings: Settings, me: ExecutorId | None = None) -> AsyncIterator[Resources]:
    """Connects, and disconnects in the reverse order. `me` is a new id unless it is given.

    Raises ConfigError if a setting is wrong or the database is not migrated, Unavailable if a server is unavailable.
    """
    arm(settings.failpoints)
    me = me or new_executor_id()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.open(settings.database_dsn, size=settings.db_pool_size))
        await require_migrated(database)
        redis = await stack.enter_async_context(open_redis(settings.redis_dsn, pool_size=settings.redis_pool_size))
        await require_right_mode(redis)
        liveness = Liveness(redis, settings.max_clock_skew)
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
        files, reader = FileStorage(settings), FileReader()
        opened = Resources(
            *(settings, me, database, redis, liveness, streams, flusher, hub, feed, turns, outbox, locks, files, reader)
        )
        traces = await stack.enter_async_context(_open_traces(settings, me))
        yield replace(opened, traces=traces)


@asynccontextmanager
async def _open_traces(settings: Settings, me: ExecutorId) -> AsyncIterator[Traces | None]:
    if settings.otel_exporter_otlp_endpoint is None:
        yield None
        return
    from backend.otel_traces import open_otel  # imported late: most processes trace nothing, and need no SDK

    async with open_otel(settings.otel_exporter_otlp_endpoint, me) as traces:
        yield traces
