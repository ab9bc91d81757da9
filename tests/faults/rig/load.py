"""Load for fault tests: many users that ask at a given rate, and sessions that get messages faster than they answer."""

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
    """The length of the model's answers: `chunks` deltas, each after `delay_ms` milliseconds."""

    chunks: int
    delay_ms: int

    def ask_for(self, name: str) -> str:
        return question(name, self.chunks, self.delay_ms)


@dataclass(slots=True)
class Schedule:
    """A schedule that spreads `total` messages evenly over `seconds`. `took` holds the seconds until each was
    answered."""

    total: int
    seconds: float
    begun: int = 0
    took: list[float] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    async def next(self) -> int | None:
        """Waits until the next message is due and returns its number. Returns None when all have begun."""
        if self.begun >= self.total:
            return None
        number = self.begun
        self.begun += 1
        await asyncio.sleep(self._since + number * self.seconds / self.total - time.monotonic())
        return number


async def keep_asking(
    rig: Rig,
    users: Sequence[str],
    schedule: Schedule,
    answers: Answers,
    *,
    sessions_each: int,
    turns: int,
    cancelling: int = 0,
) -> None:
    """Makes each user ask in `sessions_each` sessions at once, each question after the previous answer, with a new
    session after `turns` questions. Every `cancelling`-th message is cancelled once it has been accepted."""

    async def ask_in_turn(client: Client) -> None:
        while True:
            session = await client.open_session()
            for _ in range(turns):
                if (number := await schedule.next()) is None:
                    return
                began, reading, id = time.monotonic(), Reading(), f"m{number}"
                async with asyncio.TaskGroup() as group:
                    group.create_task(client.ask(session, id, answers.ask_for(id), reading=reading))
                    if cancelling and number % cancelling == 0:
                        group.create_task(_cancel(client, reading))
                schedule.took.append(time.monotonic() - began)

    async def of_user(user: str) -> None:
        async with open_client(user, rig.bases, rig.history) as client, asyncio.TaskGroup() as group:
            for _ in range(sessions_each):
                group.create_task(ask_in_turn(client))

    async with asyncio.TaskGroup() as group:
        for user in users:
            group.create_task(of_user(user))


async def _cancel(client: Client, reading: Reading) -> None:
    await reading.accepted.wait()
    await client.cancel(reading.task)


async def ask_quickly(rig: Rig, user: str, messages: int, answers: Answers) -> None:
    """Sends messages in one session, each as soon as the previous one was accepted, and reads all answers meanwhile."""
    async with open_client(user, rig.bases, rig.history) as client, asyncio.TaskGroup() as group:
        session = await client.open_session()
        for n in range(messages):
            reading, id = Reading(), f"{user}-{n}"
            group.create_task(client.ask(session, id, answers.ask_for(id), reading=reading))
            await reading.accepted.wait()
