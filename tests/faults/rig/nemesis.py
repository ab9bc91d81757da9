"""The strikes against a rig, in an order and at times that a seed decides. What is struck comes back: some at once,
some after a while.

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

from tests.faults.rig.seats import Seat
from tests.faults.rig.supervisor import Rig
from tests.servers.proxy import Mode

Repair = Coroutine[Any, Any, None]
Strike = Callable[[Rig, Random], Awaitable[tuple[str, Repair | None]]]
"""Strikes; returns whom it struck, and what makes that whole again when nobody else does."""

KILLS = ("kill-rabbitmq", "kill-api", "kill-executor", "kill-redis", "kill-postgres")
FREEZES = ("freeze-api", "freeze-executor", "freeze-rabbitmq", "freeze-redis", "freeze-postgres")
CUTS = ("cut-api", "cut-executor")
ALL = (*KILLS, "empty-redis", *FREEZES, *CUTS)
_AWAY = (1.0, 5.0)
"""For how long what is frozen or cut off stays so."""
_FAILURES = (Mode.RESET, Mode.BLACKHOLE, Mode.LOSE_REPLIES)


class Nemesis:
    """Strikes one kind after the other. `struck` counts them."""

    def __init__(self, rig: Rig, chance: Random, kinds: Sequence[str], *, pause: tuple[float, float]) -> None:
        self._rig = rig
        self._chance = chance
        self._strikes = [(kind, _strike_of(kind)) for kind in kinds]
        self._pause = pause
        self._repairs: dict[str, asyncio.Task[None]] = {}
        self.struck: Counter[str] = Counter()

    async def strike(self, times: int | None = None) -> None:
        """Returns when all strikes are done and repaired; without a number it strikes until it is cancelled."""
        try:
            for n in count() if times is None else range(times):
                await asyncio.sleep(self._chance.uniform(*self._pause))  # the pace of the strikes
                await self._strike(*self._strikes[n % len(self._strikes)])
            await asyncio.gather(*self._repairs.values())
        finally:
            for repair in self._repairs.values():
                repair.cancel()

    async def _strike(self, kind: str, strike: Strike) -> None:
        victim = kind.partition("-")[2]
        if victim in self._repairs:  # nobody is struck who lies already
            await self._repairs[victim]
        whom, repair = await strike(self._rig, self._chance)
        self._rig.history.note("nemesis", kind, whom, "ok")
        self.struck[kind] += 1
        if repair is not None:
            self._repairs[victim] = asyncio.create_task(repair)


def _strike_of(kind: str) -> Strike:
    verb, _, victim = kind.partition("-")
    if verb == "empty":
        return _empty_redis
    of_a_seat = {"kill": _kill_seat, "freeze": _freeze_seat, "cut": _cut_seat}
    of_a_store = {"kill": _kill_store, "freeze": _freeze_store}
    return (of_a_seat if victim in ("api", "executor") else of_a_store)[verb](victim)


def _one_of(rig: Rig, victim: str, chance: Random) -> Seat:
    return chance.choice(rig.apis if victim == "api" else rig.executors)


def _kill_seat(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, None]:
        seat = _one_of(rig, victim, chance)
        await seat.kill()
        return seat.url, None

    return strike


def _freeze_seat(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, Repair]:
        seat, while_away = _one_of(rig, victim, chance), chance.uniform(*_AWAY)
        seat.freeze()
        return seat.url, _later(while_away, seat.heal)

    return strike


def _cut_seat(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, Repair]:
        seat, while_away = _one_of(rig, victim, chance), chance.uniform(*_AWAY)
        store, mode = chance.choice(sorted(seat.ways)), chance.choice(_FAILURES)
        await seat.cut_off(store, mode)
        return f"{seat.url} {store} {mode}", _later(while_away, seat.heal)

    return strike


def _kill_store(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, Repair]:
        node = rig.stores.all[victim]
        await node.kill()
        return victim, node.start()

    return strike


def _freeze_store(victim: str) -> Strike:
    async def strike(rig: Rig, chance: Random) -> tuple[str, Repair]:
        node, while_away = rig.stores.all[victim], chance.uniform(*_AWAY)
        node.pause()

        async def resume() -> None:
            node.resume()

        return victim, _later(while_away, resume)

    return strike


async def _empty_redis(rig: Rig, chance: Random) -> tuple[str, None]:
    await rig.stores.empty_redis()
    return "redis", None


async def _later(seconds: float, act: Callable[[], Repair]) -> None:
    await asyncio.sleep(seconds)  # how long it stays struck
    await act()
