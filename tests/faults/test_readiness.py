"""I11: readiness is right even if every store answers, for an executor that may not consume turns and for one process
that alone is cut off from a store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.stack import new_user
from tests.faults.rig.clients import open_client
from tests.faults.rig.losses import unreadable_queue
from tests.faults.rig.model import answer_to, question
from tests.faults.rig.readings import Reading
from tests.faults.rig.slots import ProcessSlot
from tests.faults.rig.supervisor import Rig, Stores, open_rig
from tests.faults.scale import scale
from tests.plain_http import http_client
from tests.servers.proxy import Mode
from tests.speed import limit

REPORTED_WITHIN = limit(30)
ALL = {"postgres", "redis", "hub", "turns", "clock"}
pytestmark = pytest.mark.timeout(scale(180, 600))


async def checks_of(slot: ProcessSlot) -> set[str]:
    """Returns the readiness checks that pass, among those that API and executor have in common."""
    async with http_client(timeout=limit(20)) as http:
        assert (await http.get(f"{slot.url}/api/chat/health/live")).status_code == 200
        answer = await http.get(f"{slot.url}/api/chat/health/ready")
        checks = answer.json()["checks"]
    assert set(checks) - {"completions"} == ALL
    assert answer.status_code == (200 if all(checks.values()) else 503)
    return {name for name, passed in checks.items() if passed and name != "completions"}


async def until_checks_are(slot: ProcessSlot, wanted: set[str]) -> None:
    async with asyncio.timeout(REPORTED_WITHIN):
        while await checks_of(slot) != wanted:
            await asyncio.sleep(0.1)


async def test_an_executor_is_ready_only_while_it_can_take_turns(stores: Stores, tmp_path: Path) -> None:
    async with open_rig(tmp_path, stores, apis=1, executors=2) as rig:
        async with open_client(new_user(), rig.bases, rig.history) as client, asyncio.timeout(limit(90)):
            session, text, reading = await client.open_session(), question("q", 5, 10), Reading()
            async with unreadable_queue(stores.rabbitmq):
                await asyncio.gather(*(until_checks_are(slot, ALL - {"turns"}) for slot in rig.executors))
                await until_checks_are(rig.apis[0], ALL)
                asking = asyncio.create_task(client.ask(session, "m", text, reading=reading))
                await reading.accepted.wait()
            await asking
            assert reading.seen.text == answer_to(text)
            await rig.ready()
            await one_store_is_cut_off(rig)
        assert {slot.starts for slot in rig.slots} == {1}


async def one_store_is_cut_off(rig: Rig) -> None:
    """Asserts that only the executor that is cut off reports it, and only for that store."""
    cut, other = rig.executors
    for store, lost in (("postgres", {"postgres"}), ("redis", {"redis", "hub"}), ("rabbitmq", {"turns"})):
        await cut.cut_off(store, Mode.DOWN)
        await until_checks_are(cut, ALL - lost)
        await until_checks_are(other, ALL)
        await cut.heal()
        await rig.ready()
