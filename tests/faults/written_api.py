"""Starts an API whose streams the test writes itself, so that the test knows when each chunk was written."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from backend.chat.keys import stream_key
from backend.chat.protocol.chunks import END, Finish, FinishStep, Start, StartStep, TextDelta, TextEnd, TextStart
from backend.chat.streams.writer import Flusher, StreamWriter
from backend.ids import SessionId, TaskId, fence_of
from backend.redis import open_redis
from tests.e2e.chat_api import asked, followed, open_session
from tests.e2e.stack import Child, Servers, Stack, new_user, open_stack, ready
from tests.faults import short_timeout_api
from tests.faults.owners import postgres_connection
from tests.faults.scale import FULL

STAMP_EVERY = 0.1
"""Seconds."""
_STAMPS = re.compile(r"\d+(?=;)")


@dataclass(frozen=True)
class WrittenApi:
    """An API without executors. The test writes the streams itself."""

    stack: Stack
    api: Child
    user: str
    http: httpx.AsyncClient
    flusher: Flusher

    async def open_task(self) -> tuple[str, StreamWriter]:
        """Creates a task that waits for an executor. Returns its id and a writer for its stream."""
        session = await open_session(self.http)
        async with asked(self.http, session, "hello") as stream:
            task = stream.task_id
        key = stream_key(SessionId(session), TaskId(task))
        writer = self.flusher.writer(key, await self.fence_of(task), create=True)
        await writer.append(Start("msg_1"), StartStep(), TextStart("t"))
        return task, writer

    async def fence_of(self, task: str) -> int:
        """Returns the first part of the ids in the task's stream."""
        async with postgres_connection(self.stack.servers.postgres) as c:
            return fence_of(await c.fetchval("SELECT number FROM tasks WHERE id = $1", task), 1)


@asynccontextmanager
async def open_written_api(servers: Servers, folder: Path, **settings: str) -> AsyncIterator[WrittenApi]:
    """Starts the API, with `settings` as environment variables. In a small run its timeouts are shorter."""
    limits = {"MAX_OPEN_STREAMS": "10000", "MAX_RUNNING_TURNS": "1000", "LOG_LEVEL": "WARNING", **settings}
    async with (
        open_stack(servers, folder, apis=0, executors=0, **limits) as stack,
        open_redis(servers.redis, pool_size=4) as redis,
        Flusher(redis, ttl=3600) as flusher,
    ):
        api = await stack.spawn("api", program=None if FULL else short_timeout_api.PROGRAM)
        await ready(api)
        user = new_user()
        async with stack.client(user, base=api.url) as http:
            yield WrittenApi(stack, api, user, http, flusher)


@dataclass
class TimestampStream:
    """A stream to which the current time is written every STAMP_EVERY seconds. `late` holds, for each chunk that a
    reader received, the time of arrival and the delay in seconds."""

    task: str
    writer: StreamWriter
    written: list[str] = field(default_factory=list)
    late: list[tuple[float, float]] = field(default_factory=list)

    async def write(self, over: asyncio.Event) -> None:
        while not over.is_set():
            self.written.append(str(time.monotonic_ns()))
            await self.writer.append(TextDelta("t", f"{self.written[-1]};"))
            await asyncio.sleep(STAMP_EVERY)
        await self.writer.append(TextEnd("t"), FinishStep(), Finish("stop", {"status": "completed"}))
        await self.writer.control(END)
        await self.writer.drain()

    async def read(self, http: httpx.AsyncClient) -> None:
        """Reads the whole stream and asserts that every chunk comes once and in order."""
        received: list[str] = []
        async with followed(http, self.task) as stream:
            async for event in stream:
                stamps, now = _STAMPS.findall(event.data) if '"text-delta"' in event.data else [], time.monotonic()
                received += stamps
                self.late += [(now, now - int(stamp) / 1e9) for stamp in stamps]
        assert received == self.written
