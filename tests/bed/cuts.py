"""Cuts hosts of every kind off from all others, at times and for durations that a seed determines."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.bed.bed import NUMBERS, Bed
from tests.faults.rig.history import History
from tests.servers.hosts import DIRECTIONS, Direction
from tests.speed import limit


@dataclass
class Cuts:
    """`struck` counts the cuts by kind of host. At most one host of a kind is cut off at a time, so that a majority is
    left. `pause` and `lasting` are ranges in seconds."""

    bed: Bed
    chance: Random
    history: History
    pause: tuple[float, float]
    lasting: tuple[float, float]
    struck: Counter[str] = field(default_factory=Counter)
    restarted: list[str] = field(default_factory=list)
    """The nodes of RabbitMQ that did not find each other again by themselves."""
    _healing: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def make(self, times: int) -> None:
        """Makes so many cuts and returns when all are healed."""
        kinds = list(NUMBERS)
        try:
            for n in range(times):
                await asyncio.sleep(self.chance.uniform(*self.pause))  # the time between two cuts
                await self._cut(kinds[n % len(kinds)])
            await asyncio.gather(*self._healing.values())
        finally:
            for healing in self._healing.values():
                healing.cancel()

    async def _cut(self, kind: str) -> None:
        if kind in self._healing:
            await self._healing[kind]
        name = f"{kind}-{self.chance.randint(1, NUMBERS[kind])}"
        direction, duration = self.chance.choice(DIRECTIONS), self.chance.uniform(*self.lasting)
        self.history.note("cuts", kind, f"{name} {direction} {duration:.1f} s", "invoke")
        await self._begin(name, direction)
        self.struck[kind] += 1
        self._healing[kind] = asyncio.create_task(self._heal(kind, name, duration))

    async def _begin(self, name: str, direction: Direction) -> None:
        await self.bed.hosts[name].partition(direction)

    async def _heal(self, kind: str, name: str, duration: float) -> None:
        await asyncio.sleep(duration)  # how long the host is cut off
        await self.bed.hosts[name].heal()
        await self._whole(kind)
        self.history.note("cuts", kind, name, "ok")

    async def _whole(self, kind: str) -> None:
        """Waits until the stores of that kind have all their members again."""
        async with asyncio.timeout(limit(240)):
            if kind == "redis":
                await self.bed.redis.heal()
            elif kind == "rabbitmq":
                self.restarted += await self.bed.rabbitmq.mend()
            elif kind == "postgres":
                await self.bed.postgres.commit_on_both()
