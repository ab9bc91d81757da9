"""The rig itself: what dies in it comes again, and clients piece their answers together all the same."""

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


async def test_an_answer_is_read_to_its_end_while_all_that_it_comes_from_dies(stores: Stores, tmp_path: Path) -> None:
    text, reading = question("t", 60, 20), Reading()
    async with open_rig(tmp_path, stores, apis=1, executors=1) as rig, asyncio.timeout(LIMIT):
        async with open_client(new_user(), rig.bases, rig.history) as client:
            asking = asyncio.create_task(client.ask(await client.open_session(), "m1", text, reading=reading))
            await reading.until(10)
            for seat in rig.seats:
                await seat.kill()
            await rig.heal()
            await asking
        assert [seat.lives for seat in rig.seats] == [2, 2]
        await _comes_again_even_if_its_database_is_away_at_its_start(rig)
    assert reading.seen.text == answer_to(text) != ""
    assert reading.seen.ends == ("completed",)
    assert reading.connections > 1
    assert [event.outcome for event in rig.history.of("post")] == ["invoke", "ok"]


async def _comes_again_even_if_its_database_is_away_at_its_start(rig: Rig) -> None:
    await rig.stores.postgres.kill()
    executor = rig.executors[0]
    await executor.kill()
    while executor.lives < 4:  # the third life ended by itself
        await asyncio.sleep(0.05)
    await rig.heal()
