"""A hub, streams and a writer over a real Redis, for the tests of readers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from redis.asyncio import Redis

from backend.chat.keys import stream_key
from backend.chat.models import Message, Task, TaskKind, TaskStatus, TurnRequest, Usage
from backend.chat.protocol.chunks import (
    Chunk,
    Finish,
    FinishStep,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    encode,
)
from backend.chat.streams.hub import Hub
from backend.chat.streams.reader import attach
from backend.chat.streams.streams import Streams
from backend.chat.streams.writer import Flusher, StreamWriter
from backend.ids import TaskId, new_session_id, new_task_id
from backend.redis import open_redis
from tests.speed import limit
from tests.sse_client import StrictClient

TICK = 0.05
LIMIT = limit(20)


def new_task(status: TaskStatus = TaskStatus.RUNNING) -> Task:
    return Task(
        id=new_task_id(), number=random.randrange(10**6, 10**12), session_id=new_session_id(), user_id=None,
        kind=TaskKind.TURN, status=status, active=True, attempt=1, crashes=0, owner=None, cancel_requested=False,
        checkpoint=None, steps=0, request=TurnRequest("hello"), usage=Usage(3, 4), error=None, tool_name=None,
        operation_id=None, created_at=datetime.now(UTC), started_at=None, finished_at=None,
    )  # fmt: skip


def key_of(task: Task) -> str:
    return stream_key(task.session_id, task.id)


def turn_of(deltas: int, *, text: str = "word{} ") -> list[Chunk]:
    """Returns the chunks of a whole turn, whose only step has one text of `deltas` deltas."""
    words = [TextDelta("t1", text.format(n)) for n in range(deltas)]
    end: list[Chunk] = [TextEnd("t1"), FinishStep(), Finish("stop", {"status": "completed"})]
    return [Start("msg_1"), StartStep(), TextStart("t1"), *words, *end]


def text_of(deltas: int) -> str:
    return "".join(f"word{n} " for n in range(deltas))


@dataclass(repr=False)
class ReaderRig:
    redis: Redis
    streams: Streams
    flusher: Flusher
    hub: Hub
    rows: dict[TaskId, Task] = field(default_factory=dict)
    messages: dict[TaskId, list[Message]] = field(default_factory=dict)

    async def find_tasks(self, ids: Sequence[TaskId]) -> list[Task]:
        return [self.rows[id] for id in ids if id in self.rows]

    async def messages_of(self, id: TaskId) -> list[Message]:
        return self.messages.get(id, [])

    def task(self, status: TaskStatus = TaskStatus.RUNNING) -> Task:
        task = new_task(status)
        self.rows[task.id] = task
        return task

    def end(self, task: Task, status: TaskStatus = TaskStatus.COMPLETED) -> Task:
        self.rows[task.id] = replace(task, status=status)
        return self.rows[task.id]

    def writer(self, task: Task) -> StreamWriter:
        return self.flusher.writer(key_of(task), task.fence, create=True)

    async def write(
        self, task: Task, chunks: Sequence[Chunk | bytes], *, first: int = 1, silently: bool = False
    ) -> None:
        """Writes one entry for each chunk in one transaction. If `silently`, publishes no notification."""
        key, fence = key_of(task), task.fence
        bodies = [one if isinstance(one, bytes) else encode(one) for one in chunks]
        async with self.redis.pipeline(transaction=True) as pipe:
            for seq, body in enumerate(bodies, first):
                pipe.xadd(key, {"d": body}, id=f"{fence}-{seq}")
            pipe.expire(key, 60)
            if not silently:
                head = b"%d-%d %d-%d " % (fence, first, fence, first + len(bodies) - 1)
                pipe.publish(key, head + b"\n".join(bodies))
            await pipe.execute()

    async def read(self, task: Task, client: StrictClient, *, at_most: int | None = None) -> StrictClient:
        """Reads from the client's cursor to the end, or until the client has `at_most` more chunks."""
        accepts = frozenset({"reset-step"}) if client.accepts_reset else frozenset()
        got = len(client.chunks)
        async with asyncio.timeout(LIMIT):
            reader = await attach(
                self.hub, self.streams, task, client.cursor, accepts=accepts, messages_of=self.messages_of
            )
            async with aclosing(reader):
                async for data in reader:
                    left = None if at_most is None else got + at_most - len(client.chunks)
                    client.feed(data, at_most=left)
                    if at_most is not None and len(client.chunks) >= got + at_most:
                        break
        return client

    async def subscribers(self, task: Task) -> int:
        (_, count), *_ = await self.redis.pubsub_numsub(key_of(task))
        return int(count)


@asynccontextmanager
async def reader_rig(dsn: str) -> AsyncIterator[ReaderRig]:
    async with open_redis(dsn, pool_size=8) as redis, Flusher(redis, ttl=60, deadline=LIMIT) as flusher:
        streams = Streams(redis, ttl=60)
        rig = ReaderRig(redis, streams, flusher, None)  # type: ignore[arg-type]
        async with Hub(dsn, streams, rig.find_tasks, tick=TICK) as rig.hub:
            yield rig


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits until `condition` returns True. Raises TimeoutError after LIMIT seconds."""
    async with asyncio.timeout(LIMIT):
        while not await condition():
            await asyncio.sleep(0.02)
