"""I1, I6: while processes are killed, every accepted message is answered once and in order."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.faults.figures import record
from tests.faults.rig.checker import check, summary
from tests.faults.rig.load import Answers, Schedule, ask_quickly, keep_asking
from tests.faults.rig.nemesis import ALL, KILLS, Nemesis
from tests.faults.rig.supervisor import STORM_SETTINGS, Stores, open_rig
from tests.faults.scale import FULL, scale
from tests.faults.storms import storm

pytestmark = pytest.mark.timeout(scale(180, 3600))
PAUSE = (scale(0.3, 2.0), scale(1.7, 6.0))
ANSWERS = Answers(chunks=scale(10, 20), delay_ms=scale(40, 20))


async def test_no_accepted_message_is_lost_or_answered_twice(stores: Stores, tmp_path: Path, chance: Random) -> None:
    messages, kills = scale(60, 10_000), scale(5, 200)
    users = [f"user-{n}" for n in range(scale(10, 20))]
    async with open_rig(tmp_path, stores, **STORM_SETTINGS) as rig:
        nemesis = Nemesis(rig, chance, KILLS, pause=PAUSE)
        schedule = Schedule(messages, kills * sum(PAUSE) / 2)
        load = keep_asking(rig, users, schedule, ANSWERS, sessions_each=4, turns=10)
        snapshot = await storm(rig, nemesis.strike(kills), load)
        found = check(rig.history.events, snapshot)
        assert not found, f"{rig.history.file}\n{summary(found)}"
    assert Counter(task.status for task in snapshot.tasks) == {"completed": messages}
    assert nemesis.struck.total() == kills
    record(
        "I1",
        f"{messages} messages of {len(users)} users, {kills} kills ({_counted(nemesis)}): 0 lost, 0 answered twice; "
        f"{_speed(schedule)}",
    )


@pytest.mark.skipif(not FULL, reason="make faults: kills alone are enough for make test")
async def test_no_message_is_lost_under_mixed_faults(stores: Stores, tmp_path: Path, chance: Random) -> None:
    """The faults are kills, freezes, cut and silent connections, and a Redis that lost everything. One message in
    twelve is cancelled."""
    messages, strikes = 1_500, 50
    async with open_rig(tmp_path, stores, **STORM_SETTINGS) as rig:
        nemesis = Nemesis(rig, chance, chance.sample(ALL * 8, strikes), pause=PAUSE)
        schedule = Schedule(messages, strikes * sum(PAUSE) / 2)
        users = [f"user-{n}" for n in range(20)]
        load = keep_asking(rig, users, schedule, ANSWERS, sessions_each=4, turns=10, cancelling=12)
        snapshot = await storm(rig, nemesis.strike(strikes), load)
        found = check(rig.history.events, snapshot)
        assert not found, f"{rig.history.file}\n{summary(found)}"
    ends = Counter(task.status for task in snapshot.tasks)
    assert ends["completed"] + ends["cancelled"] == messages == ends.total()
    record(
        "I1", f"mixed: {messages} messages, {strikes} strikes ({_counted(nemesis)}): {dict(ends)}; {_speed(schedule)}"
    )


async def test_quick_messages_are_answered_one_by_one_in_the_order_of_acceptance(
    stores: Stores, tmp_path: Path, chance: Random
) -> None:
    sessions, messages, every = scale(6, 200), scale(5, 10), scale(3.0, 5.0)
    answers = Answers(10, 100)
    async with open_rig(tmp_path, stores, executors=3, **STORM_SETTINGS) as rig:
        nemesis = Nemesis(rig, chance, ["kill-executor"], pause=(every, every))
        load = asyncio.gather(*(ask_quickly(rig, f"user-{n}", messages, answers) for n in range(sessions)))
        snapshot = await storm(rig, nemesis.strike(None if FULL else 3), load, to_the_end=FULL)
        found = check(rig.history.events, snapshot)
        assert not found, f"{rig.history.file}\n{summary(found)}"
    assert Counter(task.status for task in snapshot.tasks) == {"completed": sessions * messages}
    assert nemesis.struck.total() >= 3
    record(
        "I6",
        f"{sessions} sessions x {messages} quick messages, three executors, a kill every {every:.0f} s "
        f"({nemesis.struck.total()}): no gap, no repeat, the order is that of acceptance",
    )


def _speed(schedule: Schedule) -> str:
    took = sorted(schedule.took)
    return f"answered in {took[len(took) // 2]:.1f} s (median), {took[-1]:.1f} s (longest)"


def _counted(nemesis: Nemesis) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in nemesis.struck.items())
