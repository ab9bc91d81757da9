"""The proof of the checker: with a rule of the product switched off it finds the fault, and none with the rule on.

A scenario leads straight to the place that the rule is about. `make test` runs one of them, `make faults` all, and also
without their mutants.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.stack import new_user
from tests.faults.owners import looking_into, owner_of, writes_no_more
from tests.faults.rig.checker import Violation, check
from tests.faults.rig.clients import Client, open_client
from tests.faults.rig.model import question
from tests.faults.rig.mutant import MUTANTS
from tests.faults.rig.readings import Reading
from tests.faults.rig.seats import Seat
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import Rig, Stores, open_rig
from tests.faults.scale import FULL
from tests.servers.process_tree import stopped
from tests.servers.proxy import Mode
from tests.speed import limit

pytestmark = pytest.mark.timeout(200)
LIMIT = limit(150)


@asynccontextmanager
async def asking(rig: Rig, text: str) -> AsyncIterator[tuple[Client, Reading, asyncio.Task[Reading]]]:
    """A message on its way, and its reader."""
    reading = Reading()
    async with open_client(new_user(), rig.bases, rig.history) as client:
        session = await client.open_session()
        job = asyncio.create_task(client.ask(session, "m1", text, reading=reading))
        try:
            yield client, reading, job
        finally:
            job.cancel()
            await asyncio.wait({job})


async def the_owner(rig: Rig, task: str, *, other_than: Seat | None = None) -> Seat:
    """Where the task runs."""
    async with looking_into(rig.stores.postgres.dsn) as c:
        while True:
            owner = await owner_of(c, task)
            seat = next((seat for seat in rig.executors if owner is not None and seat.executor_id == owner), None)
            if seat is not None and seat is not other_than:
                return seat
            await asyncio.sleep(0.05)  # between two questions of a bounded wait


async def a_zombie_wakes_in_its_heirs_answer(rig: Rig, occupy: Callable[..., None]) -> None:
    """The owner is frozen past its heartbeat, another executor goes on, the first one wakes and has more to say."""
    for seat in rig.seats:
        occupy(seat)
    await rig.ready()
    async with asking(rig, question("t", 200, 20)) as (_, reading, job):
        await reading.accepted.wait()
        owner = await the_owner(rig, reading.task)
        await reading.until(10)
        await _freeze(owner)
        await the_owner(rig, reading.task, other_than=owner)
        await _taken_back(reading)
        await reading.until(10)
        await owner.heal()
        await quiet(rig)
        await asyncio.wait({job}, timeout=limit(5))  # a mutant's stream may never say its end


async def _freeze(owner: Seat) -> None:
    """For the broker, too, it is gone: else that waits for three heartbeats before it gives the turn to others."""
    owner.freeze()
    await owner.cut_off("rabbitmq", Mode.RESET)


async def _taken_back(reading: Reading) -> None:
    while not any('"reset-step"' in event.data for event in reading.events):
        await asyncio.sleep(0.02)  # between two looks of a bounded wait


async def an_executor_dies_at_the_end_and_the_turn_is_cancelled(rig: Rig, occupy: Callable[..., None]) -> None:
    """It is killed between the two acts that end a turn; before anybody else has it, the user cancels."""
    (executor,) = rig.executors
    occupy(rig.apis[0])
    executor.hold()
    occupy(executor, FAILPOINTS="before_final_commit=1:kill")
    await rig.ready()
    async with asking(rig, question("t", 5, 10)) as (client, reading, job):
        await reading.accepted.wait()
        assert executor.child is not None
        await executor.child.ended()
        cancelling = asyncio.create_task(client.cancel(reading.task))
        await _cancel_is_wished(rig, reading.task)
        await executor.revive()
        await asyncio.gather(cancelling, job)
        await quiet(rig)


async def _cancel_is_wished(rig: Rig, task: str) -> None:
    async with looking_into(rig.stores.postgres.dsn) as c:
        while await c.fetchval("SELECT cancel_requested_at FROM tasks WHERE id = $1", task) is None:
            await asyncio.sleep(0.05)  # between two questions of a bounded wait


async def a_zombie_wakes_before_its_last_commit(rig: Rig, occupy: Callable[..., None]) -> None:
    """It froze with all said and nothing stored; the turn was failed for its crash meanwhile; it wakes and commits."""
    first, second = rig.executors
    occupy(rig.apis[0])
    occupy(first, FAILPOINTS="before_final_commit=1:stop")
    await asyncio.gather(rig.apis[0].ready(), first.ready())
    async with asking(rig, question("t", 5, 10)) as (_, reading, job):
        await reading.until(5)
        zombie = first.child
        assert zombie is not None
        await stopped(zombie.process.pid, LIMIT)  # by itself: woken before that, it would stop again, for good
        await _freeze(first)
        occupy(second)
        await job
        await first.heal()
        await writes_no_more(zombie, reading.task)
        await quiet(rig)


SCENARIOS = {
    "no-fence": (a_zombie_wakes_in_its_heirs_answer, {"apis": 1, "executors": 2}, {}),
    "terminal-before-commit": (
        an_executor_dies_at_the_end_and_the_turn_is_cancelled, {"apis": 1, "executors": 1}, {},
    ),
    "no-compare-and-set": (
        a_zombie_wakes_before_its_last_commit, {"apis": 1, "executors": 2}, {"MAX_CRASHES": "1"},
    ),
}  # fmt: skip


async def faults_of(stores: Stores, folder: Path, name: str, *, mutated: bool) -> list[Violation]:
    scenario, size, settings = SCENARIOS[name]

    def occupy(seat: Seat, **first_life: str) -> None:
        seat.occupy(program=("tests.faults.rig.mutant", name, seat.kind) if mutated else None, **first_life)

    async with open_rig(folder, stores, occupied=False, **size, **settings) as rig, asyncio.timeout(LIMIT):
        await scenario(rig, occupy)
        return check(rig.history.events, await take_snapshot(rig))


@pytest.mark.parametrize("mutant", MUTANTS if FULL else ["no-fence"])
async def test_the_checker_finds_what_a_rule_prevents(stores: Stores, tmp_path: Path, mutant: str) -> None:
    found = await faults_of(stores, tmp_path, mutant, mutated=True)
    print(*found, sep="\n")
    assert found


@pytest.mark.skipif(
    not FULL, reason="make faults: in make test the storms show that it finds nothing in a sound system"
)
@pytest.mark.parametrize("mutant", MUTANTS)
async def test_with_the_rule_on_it_finds_nothing(stores: Stores, tmp_path: Path, mutant: str) -> None:
    assert await faults_of(stores, tmp_path, mutant, mutated=False) == []
