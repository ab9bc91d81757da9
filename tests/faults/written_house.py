"""An API whose streams the test writes itself: what is said when is then the test's to know."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from backend.chat.chunks import END, Finish, FinishStep, Start, StartStep, TextDelta, TextEnd, TextStart
from backend.chat.keys import stream_key
from backend.chat.writing import Flusher, StreamWriter
from backend.ids import SessionId, TaskId, fence_of
from backend.redis import open_redis
from tests.e2e.stack import Child, Servers, Stack, new_user, open_stack, ready
from tests.e2e.talk import asked, followed, open_session
from tests.faults import hasty_api
from tests.faults.owners import looking_into
from tests.faults.scale import FULL

BEAT = 0.1
_STAMPS = re.compile(r"\d+(?=;)")


@dataclass(frozen=True)
class House:
    """One API and no executor: the test writes the streams itself, with the time in each chunk."""

    stack: Stack
    api: Child
    user: str
    http: httpx.AsyncClient
    flusher: Flusher

    async def open_task(self) -> tuple[str, StreamWriter]:
        """A task that waits for an executor, and the writer of the stream that it would have."""
        session = await open_session(self.http)
        async with asked(self.http, session, "hello") as stream:
            task = stream.task_id
        key = stream_key(SessionId(session), TaskId(task))
        writer = self.flusher.writer(key, await self.fence_of(task), create=True)
        await writer.append(Start("msg_1"), StartStep(), TextStart("t"))
        return task, writer

    async def fence_of(self, task: str) -> int:
        """With which the ids in its stream begin."""
        async with looking_into(self.stack.servers.postgres) as c:
            return fence_of(await c.fetchval("SELECT number FROM tasks WHERE id = $1", task), 1)


@asynccontextmanager
async def open_house(servers: Servers, folder: Path, **settings: str) -> AsyncIterator[House]:
    """`settings` are names of the environment. A small run's API has less patience."""
    limits = {"MAX_OPEN_STREAMS": "10000", "MAX_RUNNING_TURNS": "1000", "LOG_LEVEL": "WARNING", **settings}
    async with (
        open_stack(servers, folder, apis=0, executors=0, **limits) as stack,
        open_redis(servers.redis, pool_size=4) as redis,
        Flusher(redis, ttl=3600) as flusher,
    ):
        api = await stack.spawn("api", program=None if FULL else hasty_api.PROGRAM)
        await ready(api)
        user = new_user()
        async with stack.client(user, base=api.url) as http:
            yield House(stack, api, user, http, flusher)


@dataclass
class Beats:
    """A stream that says every BEAT what time it is. `late` are the seconds after which its readers knew, and when."""

    task: str
    writer: StreamWriter
    said: list[str] = field(default_factory=list)
    late: list[tuple[float, float]] = field(default_factory=list)

    async def write(self, over: asyncio.Event) -> None:
        while not over.is_set():
            self.said.append(str(time.monotonic_ns()))
            await self.writer.append(TextDelta("t", f"{self.said[-1]};"))
            await asyncio.sleep(BEAT)
        await self.writer.append(TextEnd("t"), FinishStep(), Finish("stop", {"status": "completed"}))
        await self.writer.control(END)
        await self.writer.drain()

    async def read(self, http: httpx.AsyncClient) -> None:
        """One healthy reader, from the beginning to the end; it hears everything once and in order."""
        heard: list[str] = []
        async with followed(http, self.task) as stream:
            async for event in stream:
                stamps, now = _STAMPS.findall(event.data) if '"text-delta"' in event.data else [], time.monotonic()
                heard += stamps
                self.late += [(now, now - int(stamp) / 1e9) for stamp in stamps]
        assert heard == self.said
