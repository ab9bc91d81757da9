"""I11: processes start while a store is unavailable. Without Postgres a process logs one line and ends, and its
supervisor starts it again. Without Redis or RabbitMQ it starts, is not ready, and works when the store is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import new_user
from tests.faults.figures import record
from tests.faults.rig.checker import check
from tests.faults.rig.clients import open_client
from tests.faults.rig.model import question
from tests.faults.rig.slots import ProcessSlot
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import Rig, Stores, open_rig
from tests.faults.scale import FULL, scale
from tests.plain_http import http_client
from tests.servers.proxy import Mode
from tests.speed import limit

CHECK_OF = {"redis": "redis", "rabbitmq": "turns"}
STARTS_WITHIN, BACK_WITHIN = limit(60), limit(15)
MODES = [Mode.DOWN, Mode.RESET, Mode.BLACKHOLE] if FULL else [Mode.DOWN]
pytestmark = pytest.mark.timeout(scale(180, 1800))


async def test_processes_started_during_an_outage_work_when_it_is_over(stores: Stores, tmp_path: Path) -> None:
    asked = 0
    async with open_rig(tmp_path, stores, apis=1, executors=1, started=False) as rig:
        for store in ("postgres", "redis", "rabbitmq"):
            for mode in MODES:
                back = await started_without(rig, store, mode, f"{store}-{mode}")
                record("I11", f"started while {store} is away ({mode}): traffic {back:.1f} s after its return")
                asked += 1
        async with asyncio.timeout(limit(60)):
            await quiet(rig)
            snapshot = await take_snapshot(rig)
    assert check(rig.history.events, snapshot) == [], rig.history.file
    assert len(snapshot.tasks) == asked


async def started_without(rig: Rig, store: str, mode: Mode, name: str) -> float:
    """Starts both processes while the store is unavailable. Returns the seconds from its return until a turn was
    answered."""
    for slot in rig.slots:
        await slot.cut_off(store, mode)
        await begin(slot)
    wait = fails_to_start if store == "postgres" else waits_for(CHECK_OF[store])
    await asyncio.gather(*(wait(slot) for slot in rig.slots))
    for slot in rig.slots:
        await slot.cut_off(store, Mode.PASS)
    began = time.monotonic()
    async with open_client(new_user(), rig.bases, rig.history) as client, asyncio.timeout(STARTS_WITHIN):
        await client.ask(await client.open_session(), name, question(name, 5, 10))
        back = time.monotonic() - began
        await rig.ready()
    assert back < scale(STARTS_WITHIN, BACK_WITHIN), name
    return back


async def begin(slot: ProcessSlot) -> None:
    """Starts a new process in the slot."""
    starts = slot.starts
    if starts:
        await slot.kill()
    else:
        slot.start()
    async with asyncio.timeout(STARTS_WITHIN):
        await slot.started_again(starts)


async def fails_to_start(slot: ProcessSlot) -> None:
    """Asserts that two processes in a row end by themselves with one line that names the setting."""
    async with asyncio.timeout(STARTS_WITHIN):
        for _ in range(2):
            child, starts = slot.child, slot.starts
            assert child is not None
            await child.ended(STARTS_WITHIN)
            log = child.log.read_text()
            assert child.process.returncode == 1, log
            assert log.count("\n") == 1
            assert "DATABASE_URL (or DB_HOST): PostgreSQL at " in log
            await slot.started_again(starts)


def waits_for(check: str) -> Callable[[ProcessSlot], Awaitable[None]]:
    async def wait(slot: ProcessSlot) -> None:
        """Asserts that the process is live, not ready because of that check, and keeps running."""
        async with http_client(base_url=slot.url, timeout=limit(20)) as http:
            starts = slot.starts
            async with asyncio.timeout(STARTS_WITHIN):
                while not await answers(http):
                    await asyncio.sleep(0.1)
            assert (await http.get("/api/chat/health/live")).status_code == 200
            answer = await http.get("/api/chat/health/ready")
            assert (answer.status_code, answer.json()["checks"][check]) == (503, False)
            assert slot.starts == starts

    return wait


async def answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/api/chat/health")).status_code == 200
    except httpx.TransportError:
        return False
