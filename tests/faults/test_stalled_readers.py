"""I17: readers that take nothing harm themselves alone."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.chat.chunks import TextDelta, TextStart
from tests.e2e.stack import Servers
from tests.faults import hasty_api
from tests.faults.figures import record
from tests.faults.gauges import open_streams, rss
from tests.faults.raw_readers import connect
from tests.faults.scale import scale
from tests.faults.written_house import Beats, House, open_house
from tests.servers.redis import RedisNode
from tests.speed import limit

STALLED = scale(10, 200)
LIVELY, READERS_OF_EACH = scale(2, 10), scale(2, 5)
ALONE_FOR, BESIDE_FOR = scale(2.0, 120.0), scale(5.0, 600.0)
CLOSED_WITHIN = limit(scale(hasty_api.SEND_TIMEOUT + 18, 45.0))
WARM_UP = 1.0
LONG = 8_000  # chunks of 1 kB: more than all the buffers on the way to a reader hold


async def stall(house: House, task: str, served: list[float], over: asyncio.Event) -> None:
    """STALLED readers that take nothing, and come again when they were dropped; notes how long each was served."""
    loop, healthy = asyncio.get_running_loop(), LIVELY * READERS_OF_EACH
    waiting: deque[tuple[float, socket.socket]] = deque()
    try:
        while not over.is_set():
            while len(waiting) < STALLED:
                waiting.append((loop.time(), await connect(house.api, task, house.user, buffer=4096)))
            await asyncio.sleep(0.2)
            dropped = len(waiting) + healthy - await open_streams(house.http)
            for _ in range(dropped if loop.time() - waiting[-1][0] > 1 else 0):  # the newest may not be counted yet
                since, connection = waiting.popleft()  # all are given as long: the oldest go first
                connection.close()
                served.append(loop.time() - since)
            assert not waiting or loop.time() - waiting[0][0] < CLOSED_WITHIN
    finally:
        for _, connection in waiting:
            connection.close()


@dataclass
class Seen:
    """When the stalled readers came, how long each was served, and how much memory the API took more."""

    warm_at: float
    stalled_at: float
    served: list[float]
    more: float

    def p99(self, beats: Sequence[Beats], *, alone: bool) -> float:
        """Of the healthy readers' delays, in milliseconds."""
        late = [one for beat in beats for one in beat.late]
        since, until = (self.warm_at, self.stalled_at) if alone else (self.stalled_at, float("inf"))
        delays = sorted(seconds for when, seconds in late if since <= when < until)
        return delays[int(len(delays) * 0.99)] * 1000 if delays else float("nan")


async def watch(house: House, long: str) -> Seen:
    """The healthy readers alone, then with the others beside them."""
    await asyncio.sleep(WARM_UP)
    warm_at = time.monotonic()
    await asyncio.sleep(ALONE_FOR)
    before = most = rss(house.api)
    stalled_at, served, over = time.monotonic(), list[float](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(stall(house, long, served, over))
        while time.monotonic() < stalled_at + BESIDE_FOR or len(served) < STALLED:
            await asyncio.sleep(0.5)  # between two samples; that all are dropped is bounded by `stall`
            most = max(most, rss(house.api))
        over.set()
    return Seen(warm_at, stalled_at, served, most - before)


@pytest.mark.timeout(scale(120, 1800))
async def test_readers_that_take_nothing_are_dropped_and_harm_nobody(
    postgres_dsn: str, private_redis: RedisNode, tmp_path: Path
) -> None:
    async with open_house(Servers(postgres_dsn, private_redis.dsn), tmp_path) as house:
        long, writer = await house.open_task()
        await writer.append(TextStart("u"))
        for n in range(LONG):
            await writer.append(TextDelta("tu"[n % 2], "x" * 1000))  # neighbours of one part would become one
        await writer.drain()
        beats, over = [Beats(*await house.open_task()) for _ in range(LIVELY)], asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for one in beats:
                group.create_task(one.write(over))
                for _ in range(READERS_OF_EACH):
                    group.create_task(one.read(house.http))
            seen = await watch(house, long)
            over.set()
    record(
        "I17",
        f"{BESIDE_FOR / 60:.1f} minutes of {STALLED} readers that take nothing: {len(seen.served)} dropped, after "
        f"{max(seen.served):.0f} s at most, RSS +{seen.more:.0f} MB; {LIVELY * READERS_OF_EACH} readers beside them "
        f"exact, a chunk's p99 {seen.p99(beats, alone=False):.1f} ms (alone {seen.p99(beats, alone=True):.1f} ms)",
    )
    assert max(seen.served) < CLOSED_WITHIN
    assert seen.more < 100
