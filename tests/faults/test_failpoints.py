"""I2, I5: a process is killed at each of its failpoints; every turn ends once, and its stream says so truly."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path

import pytest

from backend.failpoints import NAMES
from tests.e2e.stack import new_user
from tests.faults.figures import record
from tests.faults.owners import looking_into, owner_of
from tests.faults.rig.checker import check
from tests.faults.rig.clients import open_client
from tests.faults.rig.readings import Reading
from tests.faults.rig.seats import Seat
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, Stores, open_rig
from tests.faults.scale import scale

TIMES = scale(1, 20)
OF_THE_API = {"after_pg_commit_before_202", "after_publish_before_mark"}
BEATS_BEFORE_DEATH = 6
pytestmark = pytest.mark.timeout(scale(240, 7200))


def question(name: str, chunks: int = 12) -> str:
    """Two steps with a call in between."""
    learn = '/tool add_understanding {"user_name":"Ada"}'
    return f"/count {name} {chunks} 10\n{learn}\n/then\n/count {name}b {chunks} 10"


class Asker:
    """Asks questions that the checker can check, each of a user of its own."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._numbers = count()
        self.asked = 0

    async def ask(self, reading: Reading | None = None, chunks: int = 12) -> None:
        name = f"q{next(self._numbers)}"
        self.asked += 1
        async with open_client(new_user(), self._rig.bases, self._rig.history) as client:
            session = await client.open_session()
            await client.ask(session, name, question(name, chunks), reading=reading)


async def doomed_to(rig: Rig, name: str) -> Seat:
    """A process that will die at that failpoint, ready."""
    seat = rig.apis[0] if name in OF_THE_API else rig.executors[0]
    lives = seat.lives
    seat.doom(FAILPOINTS=f"{name}={BEATS_BEFORE_DEATH if name == 'before_renew' else 1}:kill")
    await seat.kill()
    await seat.lives_on(lives)
    await seat.ready()
    return seat


async def meet(rig: Rig, asker: Asker, name: str) -> None:
    """Asks until the doomed process has died of it."""
    seat = await doomed_to(rig, name)
    lives = seat.lives
    while seat.lives == lives:
        if name == "after_attempt_marker":
            await _leave_a_turn_to_it(rig, asker, seat)
        else:
            await asyncio.gather(*(asker.ask() for _ in range(3)))
    await seat.ready()


async def _leave_a_turn_to_it(rig: Rig, asker: Asker, heir: Seat) -> None:
    """A turn whose owner is killed while no other executor but the heir may be there."""
    reading = Reading()
    asking = asyncio.create_task(asker.ask(reading, chunks=100))
    try:
        await reading.accepted.wait()
        await reading.until(3)
        async with looking_into(rig.stores.postgres.dsn) as c:
            owner = await owner_of(c, reading.task)
        for seat in (seat for seat in rig.executors if seat is not heir):
            if seat.executor_id == owner:
                await seat.kill()
        await asking
    finally:
        asking.cancel()


async def test_a_process_that_dies_at_any_failpoint_leaves_nothing_undone(stores: Stores, tmp_path: Path) -> None:
    async with open_rig(tmp_path, stores, apis=2, executors=2, **STORM_SETTINGS) as rig:
        asker = Asker(rig)
        for name in sorted(NAMES):
            for _ in range(TIMES):
                async with asyncio.timeout(60):
                    await meet(rig, asker, name)
        async with asyncio.timeout(scale(60, 600)):
            await quiet(rig)
            snapshot = await take_snapshot(rig)
        assert check(rig.history.events, snapshot) == [], rig.history.file
        assert {task.status for task in snapshot.tasks} == {"completed"}
        assert len(snapshot.tasks) == asker.asked
    record(
        "I2",
        f"{len(NAMES)} failpoints x {TIMES} kills, {asker.asked} turns: all completed, each stream's end unique, last "
        "and true to its row (I5)",
    )
