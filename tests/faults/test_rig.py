"""The rig itself: what it starts stays up, one executor can be cut off alone, clients lose nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.stack import Child, new_user
from tests.faults.rig.clients import open_client
from tests.faults.rig.model import answer_to, question
from tests.faults.rig.readings import Reading
from tests.faults.rig.seats import Seat
from tests.faults.rig.supervisor import Rig, Stores, open_rig
from tests.servers.proxy import Mode


@pytest.fixture
async def rig(stores: Stores, tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path, stores, apis=2, executors=2) as rig:
        yield rig


def child_of(seat: Seat) -> Child:
    assert seat.child is not None
    return seat.child


async def test_an_answer_is_read_to_its_end_while_the_processes_and_stores_under_it_die(rig: Rig) -> None:
    text = question("t", 150, 20)
    async with asyncio.timeout(60), open_client(new_user(), rig.bases, rig.history) as client:
        reading = Reading()
        asking = asyncio.create_task(client.ask(await client.open_session(), "m1", text, reading=reading))
        await reading.accepted.wait()
        for seat in rig.apis:
            await seat.kill()
            await seat.ready()
        for seat in rig.executors:
            await seat.kill()
        await rig.stores.redis.kill()
        await rig.stores.redis.start()
        await asking
        await rig.heal()
    assert reading.seen.text == answer_to(text) != ""
    assert reading.seen.ends == ("completed",)
    assert reading.connections > 1
    assert [seat.lives for seat in rig.seats] == [2] * 4
    assert [event.outcome for event in rig.history.of("post")] == ["invoke", "ok"]


async def test_one_executor_alone_loses_its_way_to_redis(rig: Rig) -> None:
    text = question("t", 200, 20)
    async with asyncio.timeout(60), open_client(new_user(), rig.bases, rig.history) as client:
        reading = Reading()
        asking = asyncio.create_task(client.ask(await client.open_session(), "m1", text, reading=reading))
        await reading.accepted.wait()
        owner, other = await _who_runs(rig)
        await owner.cut_off("redis", Mode.BLACKHOLE)
        await asking
        await rig.heal()
    assert reading.seen.text == answer_to(text)
    assert rig.seat_of(str(other.executor_id)) is other
    assert re.search(r"turn ended.* status=completed", child_of(other).log.read_text())
    assert [seat.lives for seat in rig.seats] == [1] * 4


async def _who_runs(rig: Rig) -> tuple[Seat, Seat]:
    """The executor that has begun a turn, and the other one."""
    while True:
        for seat in rig.executors:
            if "turn runs" in child_of(seat).log.read_text():
                (other,) = (s for s in rig.executors if s is not seat)
                return seat, other
        await asyncio.sleep(0.05)  # between two questions of a bounded wait


async def test_what_dies_is_started_again_also_when_its_database_is_away_at_its_start(rig: Rig) -> None:
    await rig.stores.postgres.kill()
    for seat in rig.seats:
        await seat.kill()
    async with asyncio.timeout(30):
        while any(seat.lives < 3 for seat in rig.seats):  # it came again, and ended by itself
            await asyncio.sleep(0.1)
    await rig.heal()
    async with asyncio.timeout(30), open_client(new_user(), rig.bases, rig.history) as client:
        reading = await client.ask(await client.open_session(), "m1", question("t", 3, 0))
    assert reading.seen.text == "t:0;t:1;t:2;"
