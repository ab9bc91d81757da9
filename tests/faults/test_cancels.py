"""I8: a cancel that was answered wins everywhere or loses everywhere, even while Redis or the broker is unavailable."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random

import pytest

from tests.e2e.stack import new_user
from tests.faults.figures import record
from tests.faults.rig.checker import check
from tests.faults.rig.clients import open_client
from tests.faults.rig.model import question
from tests.faults.rig.readings import Reading
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, Stores, open_rig
from tests.faults.scale import FULL, scale
from tests.speed import limit

CANCELS, AT_ONCE = scale(20, 500), 10
LONG = round(limit(20))
"""Chunks of an answer. There are more of them on a slower machine."""
pytestmark = pytest.mark.timeout(scale(120, 1800))


async def ask_and_cancel(rig: Rig, number: int, moment: float) -> tuple[str, float] | None:
    """Asks a question and cancels it `moment` seconds after its acceptance. Returns the status in which the task ended
    and the seconds from the request to the end of its stream, or None if the task ended first."""
    reading, requested_at = Reading(), 0.0
    async with open_client(new_user(), rig.bases, rig.history) as client:
        session = await client.open_session()
        asking = asyncio.create_task(
            client.ask(session, f"m{number}", question(f"m{number}", LONG, 20), reading=reading)
        )
        await reading.accepted.wait()
        await asyncio.sleep(moment)
        requested_at = time.monotonic()
        answer = await client.cancel(reading.task)
        await asking
        return (reading.seen.ends[0], time.monotonic() - requested_at) if answer["cancelled"] else None


async def test_a_cancel_at_any_moment_has_the_same_outcome_everywhere(
    stores: Stores, tmp_path: Path, chance: Random
) -> None:
    """The rig's checker verifies that no task is both completed and cancelled, and that each text is a beginning of the
    answer."""
    waits: list[float] = []
    moments = [chance.random() * limit(0.7) for _ in range(CANCELS)]  # at any moment, even at the last one
    moments[0] = 0.0
    async with open_rig(tmp_path, stores, executors=2, **STORM_SETTINGS) as rig:
        for first in range(0, CANCELS, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, CANCELS))
            async with asyncio.timeout(limit(60)):
                ends = await asyncio.gather(*(ask_and_cancel(rig, number, moments[number]) for number in numbers))
            assert {end[0] for end in ends if end is not None} <= {"cancelled"}
            waits += [end[1] for end in ends if end is not None]
        async with asyncio.timeout(limit(60)):
            await quiet(rig)
            snapshot = await take_snapshot(rig)
        assert check(rig.history.events, snapshot) == [], rig.history.file
    waits.sort()
    record(
        "I8",
        f"{CANCELS} cancels at random moments, {len(waits)} in time: one story each; stopped after p50 "
        f"{waits[len(waits) // 2]:.2f} s, max {waits[-1]:.2f} s",
    )
    assert waits[-1] < limit(2 if FULL else 10)


@pytest.mark.parametrize("store", ["redis", "rabbitmq"])
async def test_a_cancel_wins_while_a_store_is_unavailable(stores: Stores, tmp_path: Path, store: str) -> None:
    """The request is in Postgres, which the executor polls once a second. Redis is killed. RabbitMQ, whose start takes
    seconds of CPU, is frozen until the answer has ended."""
    async with open_rig(tmp_path, stores, apis=1, executors=1, **STORM_SETTINGS) as rig:
        async with open_client(new_user(), rig.bases, rig.history) as client, asyncio.timeout(limit(90)):
            session, reading = await client.open_session(), Reading()
            asking = asyncio.create_task(client.ask(session, "m", question("m", 1500, 20), reading=reading))
            await reading.accepted.wait()
            await reading.until(20)
            if store == "redis":
                await stores.redis.kill()
                assert (await client.cancel(reading.task))["cancelled"]
                await stores.redis.start()
                await asking
            else:
                stores.rabbitmq.pause()
                assert (await client.cancel(reading.task))["cancelled"]
                await asking
                stores.rabbitmq.resume()
            await quiet(rig)
            snapshot = await take_snapshot(rig)
        assert [task.status for task in snapshot.tasks] == ["cancelled"]
        assert check(rig.history.events, snapshot) == [], rig.history.file
