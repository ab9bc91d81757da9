"""I1 to I8 on the test bed: stores and processes are hosts, leaders of stores move, and any host is cut off."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from random import Random

import pytest

from tests.bed.bed import APIS, EXECUTORS, Bed, open_bed
from tests.bed.cuts import Cuts
from tests.bed.load import Users, until_traffic
from tests.bed.moves import MOVES
from tests.faults.figures import record
from tests.faults.rig.checker import check, summary
from tests.faults.rig.snapshot import Snapshot, quiet, take_snapshot
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, open_rig
from tests.faults.scale import FULL, scale
from tests.servers.hosts import DIRECTIONS, why_not
from tests.speed import limit

pytestmark = [
    pytest.mark.timeout(scale(600, 7200)),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
    pytest.mark.skipif(not FULL, reason="a bed costs a minute of CPU: make faults WHAT=tests/faults/test_bed.py"),
]
USERS = 8
EACH, CUTS = 10, 60
"""How often a leader moves in each of two ways, by store, and how often a host is cut off."""
BACK_WITHIN = limit(10)
PAUSE, LASTING = (1.0, 6.0), (1.0, 20.0)


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with open_bed(folder) as opened:
            yield opened


@pytest.fixture
async def rig(bed: Bed, tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(
        tmp_path, bed.stores, apis=APIS, executors=EXECUTORS, network=bed.network, proxied=False, **STORM_SETTINGS
    ) as opened:
        yield opened


async def test_turns_go_on_while_leaders_of_stores_move_and_processes_are_replaced(
    bed: Bed, rig: Rig, chance: Random
) -> None:
    moves = [*product(MOVES, ("command", "kill"))] * EACH
    chance.shuffle(moves)
    users, waits = Users(rig, USERS), {store: list[float]() for store in MOVES}
    asking, rolling = asyncio.create_task(users.run()), asyncio.create_task(_replace_processes(rig))
    try:
        for number, (store, way) in enumerate(moves):
            since, repair = await MOVES[store][way](bed, chance)
            waited = await until_traffic(rig, f"{store}-{way}-{number}", since)
            rig.history.note("moves", store, way, "ok", waited=waited)
            waits[store].append(waited)
            await repair()
        await rig.ready()
    except BaseException:
        asking.cancel()
        raise
    finally:
        rolling.cancel()
        await asyncio.wait({rolling})
    snapshot = await _end(rig, users, asking)
    told = "; ".join(f"{store}: {_figures(found)}" for store, found in waits.items())
    record(
        "I1",
        f"bed: leaders moved {2 * EACH} times each, {len(users.took)} turns: 0 lost, 0 twice; "
        f"seconds until traffic (median, longest): {told}",
    )
    assert Counter(task.status for task in snapshot.tasks).keys() == {"completed"}
    assert max(max(found) for found in waits.values()) < BACK_WITHIN, told


async def test_every_accepted_message_is_answered_once_while_any_host_is_cut_off(
    bed: Bed, rig: Rig, chance: Random
) -> None:
    users, cuts = Users(rig, USERS), Cuts(bed, chance, rig.history, PAUSE, LASTING)
    asking = asyncio.create_task(users.run())
    try:
        await cuts.make(CUTS)
        await rig.ready()
    except BaseException:
        asking.cancel()
        raise
    snapshot = await _end(rig, users, asking)
    record(
        "I1",
        f"bed: {CUTS} partitions ({', '.join(DIRECTIONS)}) of hosts of {dict(cuts.struck)}, {len(users.took)} turns: "
        f"0 lost, 0 twice; answered in {_figures(users.took)} s; restarted: {cuts.restarted}",
    )
    assert Counter(task.status for task in snapshot.tasks).keys() == {"completed"}


async def _replace_processes(rig: Rig) -> None:
    """Replaces every API and executor, one after another, again and again."""
    while True:
        for slot in rig.slots:
            starts = slot.starts
            if slot.child is not None:
                slot.child.send(signal.SIGTERM)
                await slot.started_again(starts)
            await slot.ready()


async def _end(rig: Rig, users: Users, asking: asyncio.Task[None]) -> Snapshot:
    """Lets the users end, and checks that the guarantees held."""
    users.stop.set()
    await asking
    async with asyncio.timeout(limit(300)):
        await quiet(rig)
        snapshot = await take_snapshot(rig)
    found = check(rig.history.events, snapshot)
    assert not found, f"{rig.history.file}\n{summary(found)}"
    return snapshot


def _figures(found: list[float]) -> str:
    ordered = sorted(found)
    return f"{ordered[len(ordered) // 2]:.1f}, {ordered[-1]:.1f}"
