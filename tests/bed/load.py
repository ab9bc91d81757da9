"""Users of the bed, and how long the next answer takes after a leader has moved."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from itertools import count

from tests.faults.rig.clients import open_client
from tests.faults.rig.model import question
from tests.faults.rig.supervisor import Rig
from tests.speed import limit

CHUNKS, DELAY_MS = 40, 20
ANSWERED_WITHIN = limit(300)


@dataclass
class Users:
    """Users that ask question after question until `stop` is set. `took` holds the seconds until each was answered."""

    rig: Rig
    number: int
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    took: list[float] = field(default_factory=list)
    _names: count[int] = field(default_factory=count)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.number):
                group.create_task(self._ask_on(f"user-{number}"))

    async def _ask_on(self, user: str) -> None:
        async with open_client(user, self.rig.bases, self.rig.history) as client:
            while not self.stop.is_set():
                name, began = f"m{next(self._names)}", time.monotonic()
                async with asyncio.timeout(ANSWERED_WITHIN):
                    await client.ask(await client.open_session(), name, question(name, CHUNKS, DELAY_MS))
                self.took.append(time.monotonic() - began)


async def until_traffic(rig: Rig, name: str, since: float) -> float:
    """Asks a new question and returns the seconds from `since` until it was answered."""
    async with open_client(f"probe-{name}", rig.bases, rig.history) as client, asyncio.timeout(ANSWERED_WITHIN):
        await client.ask(await client.open_session(), name, question(name, 3, 0))
    return time.monotonic() - since
