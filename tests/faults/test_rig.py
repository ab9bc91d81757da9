"""Tests of the rig itself: processes that die are started again, and its clients still assemble exact answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.stack import new_user
from tests.faults.rig.clients import open_client
from tests.faults.rig.model import answer_to, question
from tests.faults.rig.readings import Reading
from tests.faults.rig.supervisor import Rig, Stores, open_rig
from tests.speed import limit

pytestmark = pytest.mark.timeout(200)
LIMIT = limit(150)


async def test_clients_read_an_answer_to_its_end_while_every_process_is_killed(stores: Stores, tmp_path: Path) -> None:
    text, reading = question("t", 60, 20), Reading()
    async with open_rig(tmp_path, stores, apis=1, executors=1) as rig, asyncio.timeout(LIMIT):
        async with open_client(new_user(), rig.bases, rig.history) as client:
            asking = asyncio.create_task(client.ask(await client.open_session(), "m1", text, reading=reading))
            await reading.until(10)
            for slot in rig.slots:
                await slot.kill()
            await rig.heal()
            await asking
        assert [slot.starts for slot in rig.slots] == [2, 2]
        await _restarts_even_if_the_database_is_down_at_first(rig)
    assert reading.seen.text == answer_to(text) != ""
    assert reading.seen.ends == ("completed",)
    assert reading.connections > 1
    assert [event.outcome for event in rig.history.of("post")] == ["invoke", "ok"]


async def _restarts_even_if_the_database_is_down_at_first(rig: Rig) -> None:
    await rig.stores.postgres.kill()
    executor = rig.executors[0]
    await executor.kill()
    while executor.starts < 4:  # the third process ended by itself
        await asyncio.sleep(0.05)
    await rig.heal()
