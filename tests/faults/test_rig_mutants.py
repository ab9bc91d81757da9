"""Proves the checker: if a rule of the product is switched off, it finds the fault, otherwise it finds none.

Each scenario leads straight to the code that the rule protects. `make test` runs one of them, `make faults` runs all,
with and without the mutation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.stack import new_user
from tests.faults.owners import owner_of, postgres_connection, writes_no_more
from tests.faults.rig.checker import Violation, check
from tests.faults.rig.clients import Client, open_client
from tests.faults.rig.model import question
from tests.faults.rig.mutant import MUTANTS
from tests.faults.rig.readings import Reading
from tests.faults.rig.slots import ProcessSlot
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
    """Sends a message and yields its client, its reading and the job that reads it."""
    reading = Reading()
    async with open_client(new_user(), rig.bases, rig.history) as client:
        session = await client.open_session()
        job = asyncio.create_task(client.ask(session, "m1", text, reading=reading))
        try:
            yield client, reading, job
        finally:
            job.cancel()
            await asyncio.wait({job})


async def the_owner(rig: Rig, task: str, *, other_than: ProcessSlot | None = None) -> ProcessSlot:
    """Waits until an executor, other than `other_than`, owns the task, and returns its slot."""
    async with postgres_connection(rig.stores.postgres.dsn) as c:
        while True:
            owner = await owner_of(c, task)
            slot = next((slot for slot in rig.executors if owner is not None and slot.executor_id == owner), None)
            if slot is not None and slot is not other_than:
                return slot
            await asyncio.sleep(0.05)  # between two checks of a bounded wait


async def a_zombie_wakes_during_its_successors_answer(rig: Rig, start: Callable[..., None]) -> None:
    """The owner is frozen for longer than its heartbeat lasts, another executor continues, and the first one wakes and
    writes more chunks."""
    for slot in rig.slots:
        start(slot)
    await rig.ready()
    async with asking(rig, question("t", 200, 20)) as (_, reading, job):
        await reading.accepted.wait()
        owner = await the_owner(rig, reading.task)
        await reading.until(10)
        await _freeze(owner)
        await the_owner(rig, reading.task, other_than=owner)
        await _until_reset(reading)
        await reading.until(10)
        await owner.heal()
        await quiet(rig)
        await asyncio.wait({job}, timeout=limit(5))  # a mutant's stream may never end


async def _freeze(owner: ProcessSlot) -> None:
    """Freezes the executor and closes its broker connections. Otherwise the broker would wait for three heartbeats
    before it delivers the turn to others."""
    owner.freeze()
    await owner.cut_off("rabbitmq", Mode.RESET)


async def _until_reset(reading: Reading) -> None:
    while not any('"reset-step"' in event.data for event in reading.events):
        await asyncio.sleep(0.02)  # between two checks of a bounded wait


async def an_executor_dies_at_the_end_and_the_turn_is_cancelled(rig: Rig, start: Callable[..., None]) -> None:
    """The executor is killed between the two writes that end a turn. The user cancels before another executor takes
    it."""
    (executor,) = rig.executors
    start(rig.apis[0])
    executor.disable_restarts()
    start(executor, FAILPOINTS="before_final_commit=1:kill")
    await rig.ready()
    async with asking(rig, question("t", 5, 10)) as (client, reading, job):
        await reading.accepted.wait()
        assert executor.child is not None
        await executor.child.ended()
        cancelling = asyncio.create_task(client.cancel(reading.task))
        await _until_cancel_is_requested(rig, reading.task)
        await executor.enable_restarts()
        await asyncio.gather(cancelling, job)
        await quiet(rig)


async def _until_cancel_is_requested(rig: Rig, task: str) -> None:
    async with postgres_connection(rig.stores.postgres.dsn) as c:
        while await c.fetchval("SELECT cancel_requested_at FROM tasks WHERE id = $1", task) is None:
            await asyncio.sleep(0.05)  # between two checks of a bounded wait


async def a_zombie_wakes_before_its_last_commit(rig: Rig, start: Callable[..., None]) -> None:
    """The executor freezes when the answer is streamed but not stored. The turn fails for its crash meanwhile. Then the
    executor wakes and commits."""
    first, second = rig.executors
    start(rig.apis[0])
    start(first, FAILPOINTS="before_final_commit=1:stop")
    await asyncio.gather(rig.apis[0].ready(), first.ready())
    async with asking(rig, question("t", 5, 10)) as (_, reading, job):
        await reading.until(5)
        zombie = first.child
        assert zombie is not None
        await stopped(zombie.process.pid, LIMIT)  # if it were woken earlier, it would then stop for good
        await _freeze(first)
        start(second)
        await job
        await first.heal()
        await writes_no_more(zombie, reading.task)
        await quiet(rig)


SCENARIOS = {
    "no-fence": (a_zombie_wakes_during_its_successors_answer, {"apis": 1, "executors": 2}, {}),
    "terminal-before-commit": (
        an_executor_dies_at_the_end_and_the_turn_is_cancelled, {"apis": 1, "executors": 1}, {},
    ),
    "no-compare-and-set": (
        a_zombie_wakes_before_its_last_commit, {"apis": 1, "executors": 2}, {"MAX_CRASHES": "1"},
    ),
}  # fmt: skip


async def faults_of(stores: Stores, folder: Path, name: str, *, mutated: bool) -> list[Violation]:
    scenario, size, settings = SCENARIOS[name]

    def start(slot: ProcessSlot, **settings: str) -> None:
        slot.start(program=("tests.faults.rig.mutant", name, slot.kind) if mutated else None, **settings)

    async with open_rig(folder, stores, started=False, **size, **settings) as rig, asyncio.timeout(LIMIT):
        await scenario(rig, start)
        return check(rig.history.events, await take_snapshot(rig))


@pytest.mark.parametrize("mutant", MUTANTS if FULL else ["no-fence"])
async def test_the_checker_finds_the_fault_of_each_mutant(stores: Stores, tmp_path: Path, mutant: str) -> None:
    found = await faults_of(stores, tmp_path, mutant, mutated=True)
    print(*found, sep="\n")
    assert found


@pytest.mark.skipif(
    not FULL, reason="make faults: in make test, other tests show that it finds nothing in the unchanged system"
)
@pytest.mark.parametrize("mutant", MUTANTS)
async def test_the_checker_finds_nothing_without_the_mutation(stores: Stores, tmp_path: Path, mutant: str) -> None:
    assert await faults_of(stores, tmp_path, mutant, mutated=False) == []
