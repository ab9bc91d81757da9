"""I2, I5: a process is killed at each of its failpoints. Every turn ends once, and its stream ends with its status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path

import pytest

from backend.chat.protocol.chunks import END
from backend.failpoints import NAMES
from tests.e2e.stack import new_user
from tests.faults.figures import record
from tests.faults.owners import owner_of, postgres_connection
from tests.faults.rig.checker import check
from tests.faults.rig.clients import Client, open_client
from tests.faults.rig.readings import Reading
from tests.faults.rig.slots import ProcessSlot
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, Stores, open_rig
from tests.faults.scale import scale
from tests.faults.written_ends import false_ends, fault_of
from tests.speed import limit

TIMES, TIMES_AT_THE_END = scale(1, 20), scale(1, 50)
OF_THE_API = {"after_pg_commit_before_202", "after_publish_before_mark"}
OF_OTHERS = {
    "after_completion_commit",
    "after_webhook_attempt",
    "after_remote_task",
    "before_steer_commit",
    "after_steer_commit",
}
"""Failpoints that these turns do not reach. `test_completions.py`, `test_webhooks.py`, `tests/e2e/test_mcp_tasks.py`
and `tests/e2e/test_steering.py` cover them."""
OF_THE_END = {"before_final_commit", "after_final_commit", "after_terminal_before_ack"}
MARKER = "after_attempt_marker"
HEARTBEATS_BEFORE_DEATH = 6
pytestmark = pytest.mark.timeout(scale(240, 7200))


def question(name: str, chunks: int = 6) -> str:
    """Returns a question whose answer has two steps with a tool call in between."""
    learn = '/tool add_understanding {"user_name":"Ada"}'
    return f"/count {name} {chunks} 20\n{learn}\n/then\n/count {name}b {chunks} 20"


class Asker:
    """Asks questions whose answers the checker knows, each in its own session."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._numbers = count()
        self.asked = 0

    async def ask(self, reading: Reading | None = None, chunks: int = 6) -> None:
        name = f"q{next(self._numbers)}"
        self.asked += 1
        session = await self._client.open_session()
        await self._client.ask(session, name, question(name, chunks), reading=reading)

    async def ask_three(self) -> None:
        await asyncio.gather(*(self.ask() for _ in range(3)))


async def die_at_each(slot: ProcessSlot, names: Sequence[str]) -> None:
    """Kills the process of this slot at the first failpoint, the next process at the second, and so on."""
    arm_next(slot, names[0])
    starts = slot.starts
    await slot.kill()
    for number, name in enumerate(names, 1):
        await slot.started_again(starts)
        starts, killed = slot.starts, slot.child
        arm_next(slot, *names[number : number + 1])
        await slot.started_again(starts)
        assert killed is not None
        assert f" at={name}\n" in killed.log.read_text()
    await slot.ready()


def arm_next(slot: ProcessSlot, name: str = "") -> None:
    """Makes the next process in this slot die at that failpoint."""
    visits = HEARTBEATS_BEFORE_DEATH if name == "before_renew" else 1
    slot.configure_next(FAILPOINTS=f"{name}={visits}:kill" if name else "")


async def ask_until_killed_at_each(
    slot: ProcessSlot, names: Sequence[str], ask: Callable[[], Awaitable[object]]
) -> None:
    """Asks until processes of this slot have died at each of the failpoints."""
    async with asyncio.timeout(limit(60 * len(names))):
        dying = asyncio.create_task(die_at_each(slot, names))
        try:
            while not dying.done():
                await slot.ready()
                await ask()
            await dying
        finally:
            dying.cancel()
            await asyncio.wait({dying})


async def _leave_a_turn_to(successor: ProcessSlot, rig: Rig, asker: Asker) -> None:
    """Asks a question and kills its owner, if that is another executor than the successor, which then takes over."""
    reading = Reading()
    asking = asyncio.create_task(asker.ask(reading, chunks=50))
    try:
        await reading.accepted.wait()
        await reading.until(3)
        async with postgres_connection(rig.stores.postgres.dsn) as c:
            owner = await owner_of(c, reading.task)
        for slot in (slot for slot in rig.executors if slot is not successor):
            if slot.executor_id == owner:
                await slot.kill()
        await asking
    finally:
        asking.cancel()


async def test_every_turn_completes_when_a_process_dies_at_any_failpoint(stores: Stores, tmp_path: Path) -> None:
    async with (
        open_rig(tmp_path, stores, apis=2, executors=2, **STORM_SETTINGS) as rig,
        open_client(new_user(), rig.bases, rig.history) as client,
    ):
        asker, successor = Asker(client), rig.executors[0]
        of_the_turn = NAMES - OF_THE_API - OF_OTHERS - OF_THE_END - {MARKER}
        await ask_until_killed_at_each(rig.apis[0], sorted(OF_THE_API) * TIMES, asker.ask_three)
        await ask_until_killed_at_each(successor, sorted(of_the_turn) * TIMES, asker.ask_three)
        await ask_until_killed_at_each(successor, sorted(OF_THE_END) * TIMES_AT_THE_END, asker.ask_three)
        await ask_until_killed_at_each(successor, [MARKER] * TIMES, lambda: _leave_a_turn_to(successor, rig, asker))
        async with asyncio.timeout(limit(scale(60, 600))):
            await quiet(rig)
            snapshot = await take_snapshot(rig)
        assert check(rig.history.events, snapshot) == [], rig.history.file
        assert {task.status for task in snapshot.tasks} == {"completed"}
        assert len(snapshot.tasks) == asker.asked
        assert await false_ends(stores.redis.dsn, snapshot.tasks) == []
    record(
        "I2",
        f"{len(NAMES) - len(OF_OTHERS)} failpoints x {TIMES} kills, {TIMES_AT_THE_END} at those of the end, "
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
def test_each_wrong_end_of_a_stream_is_found(entries: list[bytes]) -> None:
    assert fault_of([b"!fence", TEXT, FINISH, END], "completed") is None
    assert fault_of(entries, "completed") is not None
