"""I2, I5: a process is killed at each of its failpoints; every turn ends once, and its stream says so truly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path

import pytest

from backend.chat.chunks import END
from backend.failpoints import NAMES
from tests.e2e.stack import new_user
from tests.faults.figures import record
from tests.faults.owners import looking_into, owner_of
from tests.faults.rig.checker import check
from tests.faults.rig.clients import Client, open_client
from tests.faults.rig.readings import Reading
from tests.faults.rig.seats import Seat
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, Stores, open_rig
from tests.faults.scale import scale
from tests.faults.written_ends import false_ends, fault_of
from tests.speed import limit

TIMES, TIMES_AT_THE_END = scale(1, 20), scale(1, 50)
OF_THE_API = {"after_pg_commit_before_202", "after_publish_before_mark"}
OF_OPERATIONS = {"after_completion_commit"}
"""Met by `test_completions.py`: no turn comes there."""
OF_THE_END = {"before_final_commit", "after_final_commit", "after_terminal_before_ack"}
MARKER = "after_attempt_marker"
BEATS_BEFORE_DEATH = 6
pytestmark = pytest.mark.timeout(scale(240, 7200))


def question(name: str, chunks: int = 12) -> str:
    """Two steps with a call in between."""
    learn = '/tool add_understanding {"user_name":"Ada"}'
    return f"/count {name} {chunks} 10\n{learn}\n/then\n/count {name}b {chunks} 10"


class Asker:
    """Asks questions that the checker can check, each in a session of its own."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._numbers = count()
        self.asked = 0

    async def ask(self, reading: Reading | None = None, chunks: int = 12) -> None:
        name = f"q{next(self._numbers)}"
        self.asked += 1
        session = await self._client.open_session()
        await self._client.ask(session, name, question(name, chunks), reading=reading)

    async def ask_three(self) -> None:
        await asyncio.gather(*(self.ask() for _ in range(3)))


async def die(seat: Seat, names: Sequence[str]) -> None:
    """The process of this seat dies of the first failpoint, the one after it of the second, and so on."""
    doom(seat, names[0])
    lives = seat.lives
    await seat.kill()
    for number, name in enumerate(names, 1):
        await seat.lives_on(lives)
        lives, doomed = seat.lives, seat.child
        doom(seat, *names[number : number + 1])
        await seat.lives_on(lives)
        assert doomed is not None
        assert f" at={name}\n" in doomed.log.read_text()
    await seat.ready()


def doom(seat: Seat, name: str = "") -> None:
    """The next process here will die at that failpoint."""
    visits = BEATS_BEFORE_DEATH if name == "before_renew" else 1
    seat.doom(FAILPOINTS=f"{name}={visits}:kill" if name else "")


async def meet(seat: Seat, names: Sequence[str], ask: Callable[[], Awaitable[object]]) -> None:
    """Asks until the processes of this seat have died of all of them."""
    async with asyncio.timeout(limit(60 * len(names))):
        dying = asyncio.create_task(die(seat, names))
        try:
            while not dying.done():
                await seat.ready()
                await ask()
            await dying
        finally:
            dying.cancel()
            await asyncio.wait({dying})


async def _leave_a_turn_to_it(rig: Rig, asker: Asker, heir: Seat) -> None:
    """A turn whose owner is killed while no other executor but the heir may be there."""
    reading = Reading()
    asking = asyncio.create_task(asker.ask(reading, chunks=100))
    try:
        await reading.accepted.wait()
        await reading.until(3)
        async with looking_into(rig.stores.postgres.dsn) as c:
            owner = await owner_of(c, reading.task)
        for seat in (seat for seat in rig.executors if seat is not heir):
            if seat.executor_id == owner:
                await seat.kill()
        await asking
    finally:
        asking.cancel()


async def test_a_process_that_dies_at_any_failpoint_leaves_nothing_undone(stores: Stores, tmp_path: Path) -> None:
    async with (
        open_rig(tmp_path, stores, apis=2, executors=2, **STORM_SETTINGS) as rig,
        open_client(new_user(), rig.bases, rig.history) as client,
    ):
        asker, heir = Asker(client), rig.executors[0]
        await meet(rig.apis[0], sorted(OF_THE_API) * TIMES, asker.ask_three)
        await meet(heir, sorted(NAMES - OF_THE_API - OF_OPERATIONS - OF_THE_END - {MARKER}) * TIMES, asker.ask_three)
        await meet(heir, sorted(OF_THE_END) * TIMES_AT_THE_END, asker.ask_three)
        await meet(heir, [MARKER] * TIMES, lambda: _leave_a_turn_to_it(rig, asker, heir))
        async with asyncio.timeout(limit(scale(60, 600))):
            await quiet(rig)
            snapshot = await take_snapshot(rig)
        assert check(rig.history.events, snapshot) == [], rig.history.file
        assert {task.status for task in snapshot.tasks} == {"completed"}
        assert len(snapshot.tasks) == asker.asked
        assert await false_ends(stores.redis.dsn, snapshot.tasks) == []
    record(
        "I2",
        f"{len(NAMES) - len(OF_OPERATIONS)} failpoints x {TIMES} kills, {TIMES_AT_THE_END} at those of the end, "
        f"{asker.asked} turns: all completed, each stream's end unique, last and true to its row (I5)",
    )


TEXT, FINISH = b'{"type":"text-delta","delta":"a"}', b'{"type":"finish","messageMetadata":{"status":"completed"}}'


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [TEXT, END],
        [TEXT, FINISH],
        [FINISH, TEXT, END],
        [TEXT, FINISH, FINISH, END],
        [TEXT, FINISH, END, END],
        [TEXT, END, FINISH],
        [TEXT, FINISH.replace(b"completed", b"failed"), END],
    ],
)
def test_a_false_end_of_a_stream_is_found(entries: list[bytes]) -> None:
    assert fault_of([b"!fence", TEXT, FINISH, END], "completed") is None
    assert fault_of(entries, "completed") is not None
