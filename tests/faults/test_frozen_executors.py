"""I4: an executor that was frozen, counted as dead and woken changes nothing, and gives up its turn."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from backend.chat.keys import lock_key, stream_key
from backend.ids import SessionId, StreamId, TaskId
from tests.e2e.chat_api import asked, ending_of, history_of, open_session, read_with_cuts, task_of, text_in
from tests.e2e.sse import PACE, counted, open_stream, text_of, words_for
from tests.e2e.stack import Child, Servers, Stack, new_user, open_stack
from tests.faults.figures import record
from tests.faults.owners import executor_named, owner_of, postgres_connection, writes_no_more
from tests.faults.scale import FULL, scale
from tests.servers.proxy import FaultProxy, Mode
from tests.servers.redis import redis_client
from tests.speed import limit

WITHIN = limit(60)
CYCLES = scale(1, 100)
WORDS = words_for(4)
TEXT = counted(WORDS)
pytestmark = pytest.mark.timeout(scale(120, 3000))


@pytest.fixture
async def pair(servers: Servers, tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(servers, tmp_path, executors=2) as stack:
        yield stack


async def owner_after(stack: Stack, task: str, before: Child | None, within: float = WITHIN) -> Child:
    """Waits until another executor than `before` owns the task, and returns it."""
    async with asyncio.timeout(within), postgres_connection(stack.servers.postgres) as c:
        while True:
            owner = executor_named(stack, await owner_of(c, task) or "")
            if owner is not None and owner is not before:
                return owner
            await asyncio.sleep(0.02)


async def fences_of(redis: Redis, session: str, task: str) -> list[int]:
    """Returns the attempt that wrote each entry, in the stream's order."""
    rows = await redis.xrange(stream_key(SessionId(session), TaskId(task)))
    return [StreamId.parse(id.decode()).attempt for id, _ in rows]


async def test_an_executor_that_was_frozen_and_replaced_writes_nothing_when_it_wakes(pair: Stack) -> None:
    takeovers, stops = [], []
    async with pair.client(new_user()) as client, redis_client(pair.servers.redis) as redis:
        for _ in range(CYCLES):
            session = await open_session(client)
            path = f"/api/chat/sessions/{session}/stream?accept=reset-step"
            async with open_stream(client, "POST", path, json={"message": f"/stream {WORDS} {PACE}"}) as stream:
                reading = asyncio.create_task(stream.rest())
                frozen = await owner_after(pair, stream.task_id, None)
                while len(stream.events) < 20 and not reading.done():
                    await asyncio.sleep(0.02)
                frozen.send(signal.SIGSTOP)
                frozen_at = time.monotonic()
                successor = await owner_after(pair, stream.task_id, frozen)
                takeovers.append(time.monotonic() - frozen_at)
                seen = len(stream.events)
                async with asyncio.timeout(limit(20)):
                    while len(stream.events) < seen + 20:
                        await asyncio.sleep(0.01)
                frozen.send(signal.SIGCONT)
                woken_at = time.monotonic()
                async with asyncio.timeout(limit(20)):
                    await writes_no_more(frozen, stream.task_id)
                stops.append(time.monotonic() - woken_at)
                await asyncio.wait_for(reading, limit(60))
            assert text_of(stream.events) == TEXT
            assert ending_of(stream.events) == "completed"
            assert text_of(await read_with_cuts(client, stream.task_id, [])) == TEXT
            assert text_in((await history_of(client, session))[-1]) == TEXT
            assert (await task_of(client, stream.task_id))["attempt"] == 2
            fences = await fences_of(redis, session, stream.task_id)
            assert fences == sorted(fences)
            assert successor.running
            assert frozen.running
    takeovers.sort()
    record(
        "I4",
        f"{CYCLES} cycles of SIGSTOP, takeover, SIGCONT: 0 writes by the old owner; takeover after p50 "
        f"{takeovers[len(takeovers) // 2]:.1f} s, max {takeovers[-1]:.1f} s; stopped {max(stops):.2f} s after waking",
    )
    assert takeovers[int(len(takeovers) * 0.95)] < limit(5 if FULL else 45)
    assert max(stops) < limit(2 if FULL else 10)


async def test_deleting_the_session_lock_during_a_turn_changes_nothing(pair: Stack) -> None:
    async with pair.client(new_user()) as client, redis_client(pair.servers.redis) as redis:
        session = await open_session(client)
        async with asked(client, session, f"/stream {WORDS} {PACE}") as stream:
            for count in (20, 40, 60):
                await stream.until(count)
                assert await redis.delete(lock_key(SessionId(session))) == 1 or count > 20
            await stream.rest()
        assert text_of(stream.events) == TEXT
        assert (await task_of(client, stream.task_id))["attempt"] == 1


async def test_an_executor_that_alone_loses_redis_is_replaced_and_writes_nothing_later(
    servers: Servers, tmp_path: Path
) -> None:
    async with (
        FaultProxy.before(servers.redis) as one,
        FaultProxy.before(servers.redis) as other,
        open_stack(servers, tmp_path, executors=0) as stack,
        stack.client(new_user()) as client,
        redis_client(servers.redis) as redis,
    ):
        proxies = {(await stack.start_executor(REDIS_URL=proxy.dsn)).number: proxy for proxy in (one, other)}
        session, words = await open_session(client), words_for(6)
        path = f"/api/chat/sessions/{session}/stream?accept=reset-step"
        async with open_stream(client, "POST", path, json={"message": f"/stream {words} {PACE}"}) as stream:
            reading = asyncio.create_task(stream.rest())
            isolated = await owner_after(stack, stream.task_id, None)
            async with asyncio.timeout(limit(60)):
                while len(stream.events) < 30:
                    await asyncio.sleep(0.02)
            await proxies[isolated.number].switch(Mode.BLACKHOLE)
            await owner_after(stack, stream.task_id, isolated)
            await proxies[isolated.number].switch(Mode.PASS)
            await asyncio.wait_for(reading, limit(60))
        assert text_of(stream.events) == counted(words)
        fences = await fences_of(redis, session, stream.task_id)
        assert fences == sorted(fences)
        assert (await task_of(client, stream.task_id))["attempt"] == 2
