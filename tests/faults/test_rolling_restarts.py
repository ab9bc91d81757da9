"""I29: when every process is restarted in turn under load, no turn fails, no crash is counted, and no reader waits
long."""

from __future__ import annotations

import asyncio
import signal
import time
from itertools import count
from pathlib import Path

import pytest

from tests.e2e.stack import new_user
from tests.faults.figures import record
from tests.faults.owners import postgres_connection
from tests.faults.rig.checker import check
from tests.faults.rig.clients import open_client
from tests.faults.rig.model import question
from tests.faults.rig.readings import Reading
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, Stores, open_rig
from tests.faults.scale import FULL, scale
from tests.speed import limit

RESTARTS, USERS = scale(1, 20), scale(4, 12)
CHUNKS, DELAY_MS = 150, 20
pytestmark = pytest.mark.timeout(scale(180, 3600))


class Load:
    """Users that ask question after question until `stop` is set. `silences` holds the longest silence of each answer,
    in seconds."""

    def __init__(self, rig: Rig) -> None:
        self.stop = asyncio.Event()
        self.silences: list[float] = []
        self._rig = rig
        self._numbers = count()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(USERS):
                group.create_task(self._ask_on())

    async def _ask_on(self) -> None:
        async with open_client(new_user(), self._rig.bases, self._rig.history) as client:
            while not self.stop.is_set():
                session, name, reading = await client.open_session(), f"q{next(self._numbers)}", Reading()
                watching = asyncio.create_task(self._watch(reading))
                async with asyncio.timeout(limit(120)):
                    await client.ask(session, name, question(name, CHUNKS, DELAY_MS), reading=reading)
                watching.cancel()

    async def _watch(self, reading: Reading) -> None:
        """Measures the longest silence from the acceptance to the end."""
        await reading.accepted.wait()
        seen, since, longest = 0, time.monotonic(), 0.0
        try:
            while True:
                await asyncio.sleep(0.05)
                now = time.monotonic()
                longest = max(longest, now - since)
                if len(reading.events) != seen:
                    seen, since = len(reading.events), now
        finally:
            self.silences.append(longest)


async def restart_all(rig: Rig) -> None:
    for slot in rig.slots:
        starts = slot.starts
        assert slot.child is not None
        slot.child.send(signal.SIGTERM)
        async with asyncio.timeout(limit(60)):
            await slot.started_again(starts)
        await slot.ready()


async def test_a_rolling_restart_fails_no_turn(stores: Stores, tmp_path: Path) -> None:
    async with open_rig(tmp_path, stores, apis=2, executors=2, SHUTDOWN_GRACE="1", **STORM_SETTINGS) as rig:
        load = Load(rig)
        loading = asyncio.create_task(load.run())
        for _ in range(RESTARTS):
            await restart_all(rig)
        load.stop.set()
        await loading
        async with asyncio.timeout(limit(60)):
            await quiet(rig)
            snapshot = await take_snapshot(rig)
        assert check(rig.history.events, snapshot) == [], rig.history.file
        assert {task.status for task in snapshot.tasks} == {"completed"}
        async with postgres_connection(stores.postgres.dsn) as c:
            assert await c.fetchval("SELECT coalesce(sum(crashes), 0) FROM tasks") == 0
            handed_back = await c.fetchval("SELECT count(*) FROM tasks WHERE attempt > 1")
        codes = [event.about["exit"] for event in rig.history.of("process") if event.outcome == "ok"]
        assert codes == [0] * (RESTARTS * 4)
    silences = sorted(load.silences)
    p95 = silences[int(len(silences) * 0.95)]
    record(
        "I29",
        f"{RESTARTS} rolling restarts of 2 APIs and 2 executors under load, {len(snapshot.tasks)} turns, {handed_back} "
        f"handed back: 0 failed, 0 crashes; longest silence of a reader p95 {p95:.1f} s, max {silences[-1]:.1f} s",
    )
    assert silences[-1] < limit(5 if FULL else 20)
