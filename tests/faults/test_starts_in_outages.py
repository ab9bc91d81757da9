"""I11: processes that are started while a store is away. One that needs it to begin says so in one line and ends, for
whoever keeps it running to start it again; else it begins, not ready, and works when the store is there."""

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
from tests.faults.rig.seats import Seat
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import Rig, Stores, open_rig
from tests.faults.scale import FULL, scale
from tests.servers.proxy import Mode
from tests.speed import limit

CHECK_OF = {"redis": "redis", "rabbitmq": "turns"}
STARTS_WITHIN, BACK_WITHIN = limit(60), limit(15)
MODES = [Mode.DOWN, Mode.RESET, Mode.BLACKHOLE] if FULL else [Mode.DOWN]
pytestmark = pytest.mark.timeout(scale(180, 1800))


async def test_whoever_is_started_in_an_outage_works_when_it_is_over(stores: Stores, tmp_path: Path) -> None:
    asked = 0
    async with open_rig(tmp_path, stores, apis=1, executors=1, occupied=False) as rig:
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
    """Both processes begin while the store is away; how long after its return a turn was answered."""
    for seat in rig.seats:
        await seat.cut_off(store, mode)
        await begin(seat)
    wait = cannot_start if store == "postgres" else waits_for(CHECK_OF[store])
    await asyncio.gather(*(wait(seat) for seat in rig.seats))
    for seat in rig.seats:
        await seat.cut_off(store, Mode.PASS)
    began = time.monotonic()
    async with open_client(new_user(), rig.bases, rig.history) as client, asyncio.timeout(STARTS_WITHIN):
        await client.ask(await client.open_session(), name, question(name, 5, 10))
        back = time.monotonic() - began
        await rig.ready()
    assert back < scale(STARTS_WITHIN, BACK_WITHIN), name
    return back


async def begin(seat: Seat) -> None:
    """A new process has the seat."""
    lives = seat.lives
    if lives:
        await seat.kill()
    else:
        seat.occupy()
    async with asyncio.timeout(STARTS_WITHIN):
        await seat.lives_on(lives)


async def cannot_start(seat: Seat) -> None:
    """Two processes in a row end soon, by themselves, with one line that names the setting."""
    async with asyncio.timeout(STARTS_WITHIN):
        for _ in range(2):
            child, lives = seat.child, seat.lives
            assert child is not None
            await child.ended(STARTS_WITHIN)
            said = child.log.read_text()
            assert child.process.returncode == 1, said
            assert said.count("\n") == 1
            assert "DATABASE_URL (or DB_HOST): PostgreSQL at " in said
            await seat.lives_on(lives)


def waits_for(check: str) -> Callable[[Seat], Awaitable[None]]:
    async def wait(seat: Seat) -> None:
        """It lives, says for what it waits, and stays."""
        async with httpx.AsyncClient(base_url=seat.url, trust_env=False, timeout=limit(20)) as http:
            lives = seat.lives
            async with asyncio.timeout(STARTS_WITHIN):
                while not await answers(http):
                    await asyncio.sleep(0.1)
            assert (await http.get("/api/chat/health/live")).status_code == 200
            answer = await http.get("/api/chat/health/ready")
            assert (answer.status_code, answer.json()["checks"][check]) == (503, False)
            assert seat.lives == lives

    return wait


async def answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/api/chat/health")).status_code == 200
    except httpx.TransportError:
        return False
