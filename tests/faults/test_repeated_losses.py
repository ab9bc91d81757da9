"""I11, I12: while users keep asking, stores repeatedly lose their connections, their data, and what was declared in
them."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from pathlib import Path
from random import Random

import pytest

from tests.e2e.stack import new_user
from tests.faults.figures import record
from tests.faults.rig.checker import check
from tests.faults.rig.clients import Client, open_client
from tests.faults.rig.losses import (
    Loss,
    close_postgres_connections,
    close_rabbitmq_connections,
    close_redis_connections,
    delete_binding,
    delete_exchange,
    delete_queue,
    empty_redis,
    until_consumers_are,
)
from tests.faults.rig.model import question
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, Stores, open_rig
from tests.faults.scale import FULL, scale
from tests.speed import limit

TIMES, USERS = scale(1, 20), scale(4, 8)
BACK_WITHIN = limit(15)
"""Limit for a message that is sent after the loss. A turn that was in a lost queue is published again after 60 s."""
ANSWERED_WITHIN = limit(scale(100, 120))
PAUSE = (0.2, 2.0)
EXECUTORS = 2
LOSSES: list[tuple[str, str, Loss]] = [
    ("I11", "Redis lost its connections", close_redis_connections),
    ("I11", "Redis lost its data", empty_redis),
    ("I11", "RabbitMQ lost its connections", close_rabbitmq_connections),
    ("I11", "PostgreSQL lost its connections", close_postgres_connections),
    ("I12", "the queue was deleted", delete_queue),
    ("I12", "the exchange was deleted", delete_exchange),
    ("I12", "the binding was deleted", delete_binding),
]
SMALL = {close_redis_connections, close_postgres_connections, delete_binding}
CHOSEN = LOSSES if FULL else [loss for loss in LOSSES if loss[2] in SMALL]
pytestmark = [
    pytest.mark.timeout(scale(240, 3600)),
    pytest.mark.skipif(not FULL, reason="make faults: test_outages is enough for make test"),
]


class Asking:
    """Users that ask question after question until `stop` is set. `took` holds the seconds until each was answered."""

    def __init__(self, rig: Rig) -> None:
        self.stop = asyncio.Event()
        self.took: list[float] = []
        self._rig = rig
        self._numbers = count()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(USERS):
                group.create_task(self._ask_on())

    async def _ask_on(self) -> None:
        async with open_client(new_user(), self._rig.bases, self._rig.history) as client:
            session = await client.open_session()
            while not self.stop.is_set():
                self.took.append(await answered(client, session, f"q{next(self._numbers)}"))


async def answered(client: Client, session: str, name: str) -> float:
    """Asks a question and returns the seconds until it was answered."""
    began = time.monotonic()
    async with asyncio.timeout(ANSWERED_WITHIN):
        await client.ask(session, name, question(name, 20, 10))
    return time.monotonic() - began


async def test_lost_connections_and_data_are_restored_and_no_message_is_lost(
    stores: Stores, tmp_path: Path, chance: Random
) -> None:
    async with open_rig(tmp_path, stores, apis=2, executors=EXECUTORS, **STORM_SETTINGS) as rig:
        asking = Asking(rig)
        load = asyncio.create_task(asking.run())
        async with open_client(new_user(), rig.bases, rig.history) as client:
            session = await client.open_session()
            for invariant, name, lose in CHOSEN:
                backs = []
                for n in range(TIMES):
                    await asyncio.sleep(chance.uniform(*PAUSE))
                    await lose(stores)
                    backs.append(await answered(client, session, f"{name} {n}".replace(" ", "-")))
                await rig.ready()
                await until_consumers_are(stores, EXECUTORS)
                record(invariant, f"{name}, {TIMES} times: the next message was answered {spread(backs)}")
                assert not FULL or max(backs) < BACK_WITHIN, name
        asking.stop.set()
        await load
        async with asyncio.timeout(limit(120)):
            await quiet(rig)
            snapshot = await take_snapshot(rig)
        assert check(rig.history.events, snapshot) == [], rig.history.file
        assert {task.status for task in snapshot.tasks} == {"completed"}
        assert len(snapshot.tasks) == len(asking.took) + TIMES * len(CHOSEN)
        assert {slot.starts for slot in rig.slots} == {1}
    record(
        invariant, f"{len(asking.took)} messages of {USERS} users beside it: each answered once, {spread(asking.took)}"
    )


def spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"in {ordered[len(ordered) // 2]:.1f} s (median), {ordered[-1]:.1f} s (longest)"
