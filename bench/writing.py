"""Measures how fast a process writes chunks to streams: `python -m bench.writing`, with a private server.

Each chunk is a separate `append`. Adjacent deltas are merged while a flush is in flight, as in an executor. The chunks
of "alike" cannot be merged, so its rate is the lowest.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence

import uvloop
from redis.asyncio import Redis

from backend.chat.keys import stream_key
from backend.chat.protocol.chunks import Chunk, Data, TextDelta, TextStart
from backend.chat.streams.streams import Streams
from backend.chat.streams.write_buffer import ChunkBuffer
from backend.chat.streams.writer import Flusher, StreamWriter
from backend.ids import BEGINNING, SessionId, TaskId
from bench.servers import open_private_redis

TTL = 60  # seconds


def text(i: int) -> Chunk:
    return TextDelta("t1", f"word{i} ")


def alike(i: int) -> Chunk:
    return Data("number", i)


async def produce(writer: StreamWriter, chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        await writer.append(chunk)
        await asyncio.sleep(0)
    await writer.drain()


async def measure(redis: Redis, streams: int, each: int, make: Callable[[int], Chunk]) -> tuple[float, float]:
    """Returns chunks per second and entries per chunk. Fails if the entries of the first stream are not consecutive."""
    keys = [stream_key(SessionId(str(uuid.uuid4())), TaskId("bench")) for _ in range(streams)]
    chunks = [make(i) for i in range(each)]
    async with Flusher(redis, ttl=TTL) as flusher:
        writers = [flusher.writer(key, 1001, create=True) for key in keys]
        await asyncio.gather(*(produce(writer, [TextStart("t1")]) for writer in writers))
        began = time.perf_counter()
        await asyncio.gather(*(produce(writer, chunks) for writer in writers))
        took = time.perf_counter() - began
        entries = sum(writer.last.seq - 1 for writer in writers)
    reading = Streams(redis, TTL)
    page = await reading.page(keys[0], BEGINNING, count=each + 2)
    assert [entry.id.seq for entry in page] == list(range(1, len(page) + 1))
    for key in keys:
        await reading.delete(key)
    return streams * each / took, entries / (streams * each)


def appending() -> float:
    """Returns the microseconds that the buffer needs for an append that merges."""
    buffer, chunk, times = ChunkBuffer(), TextDelta("t1", "word "), 200_000
    began = time.perf_counter()
    for _ in range(times):
        buffer.add(chunk)
    return (time.perf_counter() - began) / times * 1e6


async def awaiting(redis: Redis) -> float:
    """Returns the microseconds of an awaited append that merges. The flusher does not run meanwhile."""
    async with Flusher(redis, ttl=TTL) as flusher:
        writer = flusher.writer(stream_key(SessionId(str(uuid.uuid4())), TaskId("bench")), 1001, create=True)
        chunk, times = TextDelta("t1", "word "), 10_000
        began = time.perf_counter()
        for _ in range(times):
            await writer.append(chunk)
        return (time.perf_counter() - began) / times * 1e6


async def main() -> None:
    async with open_private_redis() as dsn, Redis.from_url(dsn) as redis:
        print(f"{'chunks':8} {'streams':>8} {'each':>6} {'chunks/s':>10} {'entries/chunk':>14}")
        for name, make in (("text", text), ("alike", alike)):
            for streams, each in ((1, 5000), (100, 500), (1000, 50)):
                rate, share = await measure(redis, streams, each, make)
                print(f"{name:8} {streams:8} {each:6} {rate:10,.0f} {share:14.2f}")
        print(f"an append that merges: {appending():.2f} µs in the buffer, {await awaiting(redis):.2f} µs awaited")


if __name__ == "__main__":
    uvloop.run(main())
