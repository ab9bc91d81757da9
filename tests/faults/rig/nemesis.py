"""The nemesis, as Jepsen calls it: injects faults into a rig, in an order and at times that a seed determines. Every
victim recovers, some at once and some after a while.

nemesis = Nemesis(rig, Random(seed), ["kill-api", "kill-redis"], pause=(2, 6))
await nemesis.strike(200)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import count
from random import Random
from typing import Any

from tests.faults.rig.slots import ProcessSlot
from tests.faults.rig.supervisor import Rig
from tests.faults.scale import scale
from tests.servers.hosts import DIRECTIONS
from tests.servers.proxy import Mode

Repair = Coroutine[Any, Any, None]
Strike = Callable[[Rig, Random], Awaitable[tuple[str, Repair | None]]]
"""Injects one fault. Returns the name of the victim, and a repair if nothing else repairs it."""

KILLS = ("kill-rabbitmq", "kill-api", "kill-executor", "kill-redis", "kill-postgres")
FREEZES = ("freeze-api", "freeze-executor", "freeze-rabbitmq", "freeze-redis", "freeze-postgres")
CUTS = ("cut-api", "cut-executor")
PARTITIONS = ("partition-api", "partition-executor")
"""Only for a rig whose processes have hosts of their own."""
ALL = (*KILLS, "empty-redis", *FREEZES, *CUTS)
_DURATION = (1.0, 5.0)
"""The shortest and the longest time, in seconds, for which a victim stays frozen or cut off."""
_CUT_OFF = (1.0, scale(8.0, 20.0))
"""The same for a host that no packet reaches or leaves: some times are too short to be noticed, others end leases."""
_FAILURES = (Mode.RESET, Mode.BLACKHOLE, Mode.LOSE_REPLIES)


class Nemesis:
    """Injects the kinds of faults in turn. `struck` counts them by kind."""

    def __init__(self, rig: Rig, chance: Random, kinds: Sequence[str], *, pause: tuple[float, float]) -> None:
        self._rig = rig
        self._chance = chance
        self._strikes = [(kind, _strike_of(kind)) for kind in kinds]
        self._pause = pause
        self._repairs: dict[str, asyncio.Task[None]] = {}
        self.struck: Counter[str] = Counter()

    async def strike(self, times: int | None = None) -> None:
        """Injects `times` faults and returns when all are repaired. With None, continues until it is cancelled."""
        try:
            for n in count() if times is None else range(times):
                await asyncio.sleep(self._chance.uniform(*self._pause))  # the time between two faults
                await self._strike(*self._strikes[n % len(self._strikes)])
            await asyncio.gather(*self._repairs.values())
        finally:
            for repair in self._repairs.values():
                repair.cancel()

    async def _strike(self, kind: str, strike: Strike) -> None:
        victim = kind.partition("-")[2]
        if victim in self._repairs:  # a victim is repaired before it is struck again
            await self._repairs[victim]
        target, repair = await strike(self._rig, self._chance)
        self._rig.history.note("nemesis", kind, target, "ok")
        self.struck[kind] += 1
        if repair is not None:
            self._repairs[victim] = asyncio.create_task(repair)


def _strike_of(kind: str) -> Strike:
    verb, _, victim = kind.partition("-")
    if verb == "empty":
        return _empty_redis
    of_a_process = {"kill": _kill_slot, "freeze": _freeze_slot, "cut": _cut_slot, "partition": _cut_off_host}
    of_a_store = {"kill": _kill_store, "freeze": _freeze_store}
    return (of_a_process if victim in ("api", "executor") else of_a_store)[verb](victim)


def _one_of(rig: Rig, victim: str, chance: Random) -> ProcessSlot:
    return chance.choice(rig.apis if victim == "api" else rig.executors)


def _kill_slot(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, None]:
        slot = _one_of(rig, victim, chance)
        await slot.kill()
        return slot.url, None

    return strike


def _freeze_slot(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, Repair]:
        slot, duration = _one_of(rig, victim, chance), chance.uniform(*_DURATION)
        slot.freeze()
        return slot.url, _later(duration, slot.heal)

    return strike


def _cut_slot(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, Repair]:
        slot, duration = _one_of(rig, victim, chance), chance.uniform(*_DURATION)
        store, mode = chance.choice(sorted(slot.proxies)), chance.choice(_FAILURES)
        await slot.cut_off(store, mode)
        return f"{slot.url} {store} {mode}", _later(duration, slot.heal)

    return strike


def _cut_off_host(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, Repair]:
        slot, duration, direction = _one_of(rig, victim, chance), chance.uniform(*_CUT_OFF), chance.choice(DIRECTIONS)
        assert slot.host is not None
        await slot.host.partition(direction)
        return f"{slot.url} {direction} {duration:.1f} s", _later(duration, slot.host.heal)

    return strike


def _kill_store(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, Repair]:
        node = rig.stores.all[victim]
        await node.kill()
        return victim, node.start()

    return strike


def _freeze_store(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, Repair]:
        node, duration = rig.stores.all[victim], chance.uniform(*_DURATION)
        node.pause()

        async def resume() -> None:
            node.resume()

        return victim, _later(duration, resume)

    return strike


async def _empty_redis(rig: Rig, chance: Random) -> tuple[str, None]:
    await rig.stores.empty_redis()
    return "redis", None


async def _later(seconds: float, act: Callable[[], Repair]) -> None:
    await asyncio.sleep(seconds)  # how long the fault lasts
    await act()
