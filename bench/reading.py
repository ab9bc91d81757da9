"""Measures how fast streams are read without HTTP: `python -m bench.reading`, with a private server.

Replay: a reader reads an answer of 10,000 or 50,000 chunks from Redis.
Fan-out: live streams have one or more readers each. This process also publishes, so the rate is a lower bound. The CPU
time of publishing is subtracted.
Idle: the memory of an open reader that receives nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime

import uvloop
from redis.asyncio import Redis

from backend.chat.keys import stream_key
from backend.chat.models import Message, Task, TaskKind, TaskStatus, TurnRequest, Usage
from backend.chat.protocol.chunks import (
    END,
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
from backend.ids import TaskId, new_session_id, new_task_id
from backend.redis import open_redis
from bench.servers import open_private_redis

TTL = 120  # seconds
_numbers = iter(range(time.time_ns() // 1000, 2**60))


def _task() -> Task:
    return Task(
        id=new_task_id(), number=next(_numbers), session_id=new_session_id(), user_id=None, kind=TaskKind.TURN,
        status=TaskStatus.RUNNING, active=True, attempt=1, crashes=0, owner=None, cancel_requested=False,
        checkpoint=None, steps=0, request=TurnRequest("?"), usage=Usage(), error=None, tool_name=None,
        operation_id=None, created_at=datetime.now(UTC), started_at=None, finished_at=None,
    )  # fmt: skip


def _turn(deltas: int) -> list[bytes]:
    words: list[Chunk] = [TextDelta("t1", f"word{n} ") for n in range(deltas)]
    chunks: list[Chunk] = [Start("m"), StartStep(), TextStart("t1"), *words, TextEnd("t1"), FinishStep()]
    return [encode(chunk) for chunk in [*chunks, Finish("stop", {"status": "completed"})]] + [END]


async def _write(redis: Redis, task: Task, bodies: Sequence[bytes], first: int = 1) -> None:
    key, fence = stream_key(task.session_id, task.id), task.fence
    for start in range(0, len(bodies), 2000):
        part = bodies[start : start + 2000]
        async with redis.pipeline(transaction=False) as pipe:
            for seq, body in enumerate(part, first + start):
                pipe.xadd(key, {"d": body}, id=f"{fence}-{seq}")
            pipe.expire(key, TTL)
            await pipe.execute()


async def _no_messages(_: TaskId) -> Sequence[Message]:
    return ()


async def _attach(hub: Hub, streams: Streams, task: Task) -> AsyncGenerator[bytes, None]:
    return await attach(hub, streams, task, None, accepts=frozenset(), messages_of=_no_messages)


async def _replay(redis: Redis, hub: Hub, streams: Streams, chunks: int) -> tuple[float, int]:
    """Returns the seconds of the fastest of five replays, and the bytes of a replay."""
    task = _task()
    await _write(redis, task, _turn(chunks))
    best, size = float("inf"), 0
    for _ in range(5):
        began = time.perf_counter()
        reader = await _attach(hub, streams, task)
        size = sum([len(data) async for data in reader])
        best = min(best, time.perf_counter() - began)
    return best, size


async def _fan_out(
    redis: Redis, hub: Hub, streams: Streams, *, n: int, readers: int, rounds: int
) -> tuple[float, float]:
    """Returns chunks per second to all readers, and CPU seconds. Without readers, it measures publishing alone."""
    tasks = [_task() for _ in range(n)]
    head = _turn(0)[:3]
    for task in tasks:
        await _write(redis, task, head)
    got = [0]

    async def read(task: Task) -> None:
        reader = await _attach(hub, streams, task)
        async with contextlib.aclosing(reader):
            async for data in reader:
                got[0] += data.count(b"\n\n")

    jobs = [asyncio.create_task(read(task)) for task in tasks for _ in range(readers)]
    while got[0] < 3 * n * readers:  # all readers have the beginning
        await asyncio.sleep(0.01)
    body = encode(TextDelta("t1", "word "))
    began, cpu = time.perf_counter(), time.process_time()
    for seq in range(4, 4 + rounds):
        async with redis.pipeline(transaction=False) as pipe:
            for task in tasks:
                key = stream_key(task.session_id, task.id)
                pipe.xadd(key, {"d": body}, id=f"{task.fence}-{seq}")
                pipe.publish(key, b"%d-%d %d-%d %b" % (task.fence, seq, task.fence, seq, body))
            await pipe.execute()
        while got[0] < (seq) * n * readers:
            await asyncio.sleep(0)
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    return n * max(readers, 1) * rounds / took, spent


async def _idle(redis: Redis, hub: Hub, streams: Streams, readers: int) -> float:
    """Returns the KB of memory per open reader. Each reader has its own stream, which is silent."""
    tasks = [_task() for _ in range(readers)]
    for task in tasks:
        await _write(redis, task, _turn(0)[:3])
    gc.collect()
    before = _memory()
    first: list[AsyncIterator[bytes]] = [await _attach(hub, streams, task) for task in tasks]
    for reader in first:
        await anext(reader)
    waiting = [asyncio.ensure_future(anext(reader)) for reader in first]
    await asyncio.sleep(0.5)
    gc.collect()
    after = _memory()
    for job in waiting:
        job.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return (after - before) / readers / 1024


def _memory() -> int:
    with open("/proc/self/statm") as facts:
        return int(facts.read().split()[1]) * resource.getpagesize()


async def run() -> None:
    async def look_up(_: Sequence[TaskId]) -> Sequence[Task]:
        return [_task()]

    async with open_private_redis() as dsn, open_redis(dsn, pool_size=16) as redis:
        streams = Streams(redis, TTL)
        async with Hub(dsn, streams, look_up, tick=600) as hub:
            print("| measured | value |\n|---|---|")
            idle = await _idle(redis, hub, streams, 2000)
            print(f"| memory of an open, silent reader | {idle:.1f} KB |")
            for chunks in (10_000, 50_000):
                took, size = await _replay(redis, hub, streams, chunks)
                print(f"| replay of {chunks:,} chunks ({size // 1024} KB sent) | {took * 1000:.0f} ms |")
            for n, readers, rounds in ((100, 1, 100), (1000, 1, 20), (10, 100, 50)):
                _, published = await _fan_out(redis, hub, streams, n=n, readers=0, rounds=rounds)
                rate, spent = await _fan_out(redis, hub, streams, n=n, readers=readers, rounds=rounds)
                each = (spent - published) / (n * readers * rounds) * 1e6
                print(f"| {n} streams x {readers} readers, live | {rate:,.0f} chunks/s, {each:.0f} µs CPU per chunk |")


if __name__ == "__main__":
    uvloop.run(run())
