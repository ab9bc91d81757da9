"""What clients do in a storm: many that ask at a pace, and sessions that are asked faster than they answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.rig.clients import Client, open_client
from tests.faults.rig.model import question
from tests.faults.rig.readings import Reading
from tests.faults.rig.supervisor import Rig


@dataclass(frozen=True, slots=True)
class Answers:
    """How long the model's answers are; `chunks` deltas, `delay_ms` before each."""

    chunks: int
    delay_ms: int

    def ask_for(self, name: str) -> str:
        return question(name, self.chunks, self.delay_ms)


@dataclass(slots=True)
class Pace:
    """`total` messages, spread evenly over some seconds; `took` is how long each was answered in."""

    total: int
    seconds: float
    begun: int = 0
    took: list[float] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    async def next(self) -> int | None:
        """The number of the next message, when its time has come; None when all have begun."""
        if self.begun >= self.total:
            return None
        number = self.begun
        self.begun += 1
        await asyncio.sleep(self._since + number * self.seconds / self.total - time.monotonic())
        return number


async def keep_asking(
    rig: Rig, users: Sequence[str], pace: Pace, answers: Answers, *, hands: int, turns: int, cancelling: int = 0
) -> None:
    """Each user asks in `hands` sessions at once, question after answer, and begins a new session after `turns`; one of
    `cancelling` messages is cancelled when it has been accepted."""

    async def ask_in_turn(client: Client) -> None:
        while True:
            session = await client.open_session()
            for _ in range(turns):
                if (number := await pace.next()) is None:
                    return
                began, reading, id = time.monotonic(), Reading(), f"m{number}"
                async with asyncio.TaskGroup() as group:
                    group.create_task(client.ask(session, id, answers.ask_for(id), reading=reading))
                    if cancelling and number % cancelling == 0:
                        group.create_task(_cancel(client, reading))
                pace.took.append(time.monotonic() - began)

    async def of_user(user: str) -> None:
        async with open_client(user, rig.bases, rig.history) as client, asyncio.TaskGroup() as group:
            for _ in range(hands):
                group.create_task(ask_in_turn(client))

    async with asyncio.TaskGroup() as group:
        for user in users:
            group.create_task(of_user(user))


async def _cancel(client: Client, reading: Reading) -> None:
    await reading.accepted.wait()
    await client.cancel(reading.task)


async def ask_quickly(rig: Rig, user: str, messages: int, answers: Answers) -> None:
    """One session: each message is sent as soon as the one before was accepted; all answers are read along."""
    async with open_client(user, rig.bases, rig.history) as client, asyncio.TaskGroup() as group:
        session = await client.open_session()
        for n in range(messages):
            reading, id = Reading(), f"{user}-{n}"
            group.create_task(client.ask(session, id, answers.ask_for(id), reading=reading))
            await reading.accepted.wait()
