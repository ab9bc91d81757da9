"""I11: readiness tells the truth also when every store answers: of an executor that may not take turns, and of one way
alone that is cut."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import new_user
from tests.faults.rig.clients import open_client
from tests.faults.rig.losses import unreadable_queue
from tests.faults.rig.model import answer_to, question
from tests.faults.rig.readings import Reading
from tests.faults.rig.seats import Seat
from tests.faults.rig.supervisor import Rig, Stores, open_rig
from tests.faults.scale import scale
from tests.servers.proxy import Mode
from tests.speed import limit

TOLD_WITHIN = limit(30)
ALL = {"postgres", "redis", "hub", "turns"}
pytestmark = pytest.mark.timeout(scale(180, 600))


async def checks_of(seat: Seat) -> set[str]:
    """What is well there, of all that API and executor have in common."""
    async with httpx.AsyncClient(trust_env=False, timeout=limit(20)) as http:
        assert (await http.get(f"{seat.url}/api/chat/health/live")).status_code == 200
        answer = await http.get(f"{seat.url}/api/chat/health/ready")
        checks = answer.json()["checks"]
    assert set(checks) - {"completions"} == ALL
    assert answer.status_code == (200 if all(checks.values()) else 503)
    return {name for name, well in checks.items() if well and name != "completions"}


async def says(seat: Seat, wanted: set[str]) -> None:
    async with asyncio.timeout(TOLD_WITHIN):
        while await checks_of(seat) != wanted:
            await asyncio.sleep(0.1)


async def test_an_executor_is_ready_only_while_it_can_take_turns(stores: Stores, tmp_path: Path) -> None:
    async with open_rig(tmp_path, stores, apis=1, executors=2) as rig:
        async with open_client(new_user(), rig.bases, rig.history) as client, asyncio.timeout(limit(90)):
            session, text, reading = await client.open_session(), question("q", 5, 10), Reading()
            async with unreadable_queue(stores.rabbitmq):
                await asyncio.gather(*(says(seat, ALL - {"turns"}) for seat in rig.executors))
                await says(rig.apis[0], ALL)
                asking = asyncio.create_task(client.ask(session, "m", text, reading=reading))
                await reading.accepted.wait()
            await asking
            assert reading.seen.text == answer_to(text)
            await rig.ready()
            await one_way_is_cut(rig)
        assert {seat.lives for seat in rig.seats} == {1}


async def one_way_is_cut(rig: Rig) -> None:
    """Only who is cut off says so, and of that store only."""
    cut, other = rig.executors
    for store, lost in (("postgres", {"postgres"}), ("redis", {"redis", "hub"}), ("rabbitmq", {"turns"})):
        await cut.cut_off(store, Mode.DOWN)
        await says(cut, ALL - lost)
        await says(other, ALL)
        await cut.heal()
        await rig.ready()
