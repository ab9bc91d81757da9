"""I1 to I8: hosts are cut off from all others, in one direction or both, and no packet says so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.faults.figures import record
from tests.faults.rig.checker import check, summary
from tests.faults.rig.load import Answers, Schedule, keep_asking
from tests.faults.rig.nemesis import PARTITIONS, Nemesis
from tests.faults.rig.supervisor import STORM_SETTINGS, Stores, open_rig
from tests.faults.scale import scale
from tests.faults.storms import storm
from tests.servers.hosts import DIRECTIONS, open_hosts, why_not

pytestmark = [
    pytest.mark.timeout(scale(240, 7200)),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]
APIS = EXECUTORS = 3
PAUSE = (scale(0.2, 2.0), scale(1.0, 6.0))


async def test_every_accepted_message_is_answered_once_while_hosts_are_cut_off(
    stores: Stores, tmp_path: Path, chance: Random
) -> None:
    """Each API and each executor is a host with an address, a cable and connections of its own."""
    messages, partitions = scale(24, 5_000), scale(3, 200)
    users = [f"user-{n}" for n in range(scale(8, 20))]
    async with (
        open_hosts(APIS + EXECUTORS) as network,
        open_rig(tmp_path, stores, apis=APIS, executors=EXECUTORS, network=network, **STORM_SETTINGS) as rig,
    ):
        nemesis = Nemesis(rig, chance, PARTITIONS, pause=PAUSE)
        schedule = Schedule(messages, partitions * sum(PAUSE) / 2)
        load = keep_asking(rig, users, schedule, Answers(scale(10, 20), scale(40, 20)), sessions_each=4, turns=10)
        snapshot = await storm(rig, nemesis.strike(partitions), load)
        found = check(rig.history.events, snapshot)
        assert not found, f"{rig.history.file}\n{summary(found)}"
    assert Counter(task.status for task in snapshot.tasks) == {"completed": messages}
    assert nemesis.struck.total() == partitions
    took = sorted(schedule.took)
    record(
        "I1",
        f"{partitions} partitions of {APIS + EXECUTORS} hosts ({', '.join(DIRECTIONS)}), {messages} messages: 0 lost, "
        f"0 answered twice; answered in {took[len(took) // 2]:.1f} s (median), {took[-1]:.1f} s (longest)",
    )
