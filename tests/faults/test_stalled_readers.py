"""I17: a reader that accepts no data harms only itself."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.chat.protocol.chunks import TextDelta, TextStart
from tests.e2e.stack import Servers
from tests.faults import short_timeout_api
from tests.faults.figures import record
from tests.faults.gauges import open_streams, rss
from tests.faults.raw_readers import connect
from tests.faults.scale import scale
from tests.faults.written_api import TimestampStream, WrittenApi, open_written_api
from tests.servers.redis import RedisNode
from tests.speed import limit

STALLED = scale(10, 200)
LIVELY, READERS_OF_EACH = scale(2, 10), scale(2, 5)
ALONE_FOR, BESIDE_FOR = scale(2.0, 120.0), scale(5.0, 600.0)
CLOSED_WITHIN = limit(scale(short_timeout_api.SEND_TIMEOUT + 18, 45.0))
WARM_UP = 1.0
LONG = 8_000  # chunks of 1 kB: more than all the buffers on the way to a reader hold


async def stall(written: WrittenApi, task: str, served: list[float], over: asyncio.Event) -> None:
    """Keeps STALLED readers connected that accept no data. Appends to `served` the seconds after which each was
    dropped."""
    loop, healthy = asyncio.get_running_loop(), LIVELY * READERS_OF_EACH
    waiting: deque[tuple[float, socket.socket]] = deque()
    try:
        while not over.is_set():
            while len(waiting) < STALLED:
                waiting.append((loop.time(), await connect(written.api, task, written.user, buffer=4096)))
            await asyncio.sleep(0.2)
            dropped = len(waiting) + healthy - await open_streams(written.http)
            for _ in range(dropped if loop.time() - waiting[-1][0] > 1 else 0):  # the newest may not be counted yet
                since, connection = waiting.popleft()  # all have the same timeout, so the oldest is dropped first
                connection.close()
                served.append(loop.time() - since)
            assert not waiting or loop.time() - waiting[0][0] < CLOSED_WITHIN
    finally:
        for _, connection in waiting:
            connection.close()


@dataclass
class Seen:
    """The times at which the warm-up ended and the stalled readers came, the seconds for which each of them was served,
    and the growth of the API's memory in MB."""

    warm_at: float
    stalled_at: float
    served: list[float]
    more: float

    def p99(self, stamped: Sequence[TimestampStream], *, alone: bool) -> float:
        """Returns the 99th percentile of the healthy readers' delays in ms, before or while the stalled readers are
        there."""
        late = [one for beat in stamped for one in beat.late]
        since, until = (self.warm_at, self.stalled_at) if alone else (self.stalled_at, float("inf"))
        delays = sorted(seconds for when, seconds in late if since <= when < until)
        return delays[int(len(delays) * 0.99)] * 1000 if delays else float("nan")


async def watch(written: WrittenApi, long: str) -> Seen:
    """Watches the healthy readers alone, then together with the stalled ones."""
    await asyncio.sleep(WARM_UP)
    warm_at = time.monotonic()
    await asyncio.sleep(ALONE_FOR)
    before = most = rss(written.api)
    stalled_at, served, over = time.monotonic(), list[float](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(stall(written, long, served, over))
        while time.monotonic() < stalled_at + BESIDE_FOR or len(served) < STALLED:
            await asyncio.sleep(0.5)  # between two samples; that all are dropped is bounded by `stall`
            most = max(most, rss(written.api))
        over.set()
    return Seen(warm_at, stalled_at, served, most - before)


@pytest.mark.timeout(scale(120, 1800))
async def test_readers_that_accept_no_data_are_dropped_and_harm_no_other_reader(
    postgres_dsn: str, private_redis: RedisNode, tmp_path: Path
) -> None:
    async with open_written_api(Servers(postgres_dsn, private_redis.dsn), tmp_path) as written:
        long, writer = await written.open_task()
        await writer.append(TextStart("u"))
        for n in range(LONG):
            await writer.append(TextDelta("tu"[n % 2], "x" * 1000))  # neighbouring chunks of one part would be merged
        await writer.drain()
        stamped, over = [TimestampStream(*await written.open_task()) for _ in range(LIVELY)], asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for one in stamped:
                group.create_task(one.write(over))
                for _ in range(READERS_OF_EACH):
                    group.create_task(one.read(written.http))
            seen = await watch(written, long)
            over.set()
    record(
        "I17",
        f"{BESIDE_FOR / 60:.1f} minutes of {STALLED} readers that take nothing: {len(seen.served)} dropped, after "
        f"{max(seen.served):.0f} s at most, RSS +{seen.more:.0f} MB; {LIVELY * READERS_OF_EACH} readers beside them "
        f"exact, a chunk's p99 {seen.p99(stamped, alone=False):.1f} ms (alone {seen.p99(stamped, alone=True):.1f} ms)",
    )
    assert max(seen.served) < CLOSED_WITHIN
    assert seen.more < 100
