"""I15: when Redis loses replies and is frozen in mid-turn, writes are repeated and no chunk comes twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.stack import new_user
from tests.faults.figures import record
from tests.faults.rig.checker import check
from tests.faults.rig.clients import open_client
from tests.faults.rig.model import question
from tests.faults.rig.readings import Reading
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, Stores, open_rig
from tests.faults.scale import scale
from tests.servers.proxy import Mode
from tests.speed import limit

STREAMS, AT_ONCE, CHUNKS = scale(20, 1000), scale(20, 100), scale(500, 1200)
LOSING_FOR, FROZEN_FOR = 2.0, 3.5
"""Seconds."""
pytestmark = pytest.mark.timeout(scale(120, 3600))


async def ask(rig: Rig, name: str, chunks: int, reading: Reading) -> None:
    async with open_client(new_user(), rig.bases, rig.history) as client:
        session = await client.open_session()
        await client.ask(session, name, question(name, chunks, 10), reading=reading)


async def assert_all_exact(rig: Rig, turns: int) -> None:
    async with asyncio.timeout(limit(scale(60, 600))):
        await quiet(rig)
        snapshot = await take_snapshot(rig)
    assert check(rig.history.events, snapshot) == [], rig.history.file
    assert [task.status for task in snapshot.tasks] == ["completed"] * turns


async def test_lost_replies_and_a_frozen_redis_repeat_no_chunk(stores: Stores, tmp_path: Path) -> None:
    """Every append whose reply was lost is sent again, and its ids show that it has been written."""
    async with open_rig(tmp_path, stores, apis=1, executors=1, EXECUTOR_CONCURRENCY="200", **STORM_SETTINGS) as rig:
        proxy = rig.executors[0].proxies["redis"]
        for first in range(0, STREAMS, AT_ONCE):
            readings = [Reading() for _ in range(AT_ONCE)]
            async with asyncio.timeout(limit(120)), asyncio.TaskGroup() as group:
                for n, reading in enumerate(readings, first):
                    group.create_task(ask(rig, f"q{n}", CHUNKS, reading))
                await asyncio.gather(*(reading.accepted.wait() for reading in readings))
                await readings[0].until(10)
                lost = proxy.lost
                async with proxy.failing(Mode.LOSE_REPLIES):
                    await asyncio.sleep(LOSING_FOR)
                    while proxy.lost == lost:
                        await asyncio.sleep(0.05)  # between two checks of a bounded wait
                await readings[0].until(20)
                stores.redis.pause()
                await asyncio.sleep(FROZEN_FOR)
                stores.redis.resume()
        await assert_all_exact(rig, STREAMS)
    assert proxy.lost > 0
    record("I15", f"{STREAMS} streams, {proxy.lost} replies lost, Redis frozen for 3.5 s: 0 chunks twice, 0 missing")
