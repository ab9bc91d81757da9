"""I11, I12: each store is killed, frozen, cut off or emptied in mid-turn. No API or executor has to be restarted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from backend.chat.resources import READY_LIMIT
from tests.e2e.stack import bearer, new_user
from tests.faults.figures import record
from tests.faults.rig.checker import check
from tests.faults.rig.clients import open_client
from tests.faults.rig.losses import (
    Loss,
    close_postgres_connections,
    close_rabbitmq_connections,
    close_redis_connections,
    delete_exchange,
    delete_queue,
    empty_redis,
    until_consumers_are,
)
from tests.faults.rig.model import question
from tests.faults.rig.readings import Reading
from tests.faults.rig.slots import ProcessSlot
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, Stores, open_rig
from tests.faults.scale import FULL, scale
from tests.plain_http import http_client
from tests.servers.proxy import Mode
from tests.speed import limit

FROZEN_FOR, SILENT_FOR, DEAD_FOR = scale(3.0, 30.0), scale(7.0, 60.0), 3.0
"""The shortest time, in seconds, for which a store is unavailable. It stays so until every process reports it."""
BACK_WITHIN = limit(15)
ANSWERED_WITHIN = limit(20)
"""Postgres takes up to 5 s for a connection and 10 s for a statement."""
CHECK_OF = {"postgres": "postgres", "redis": "redis", "rabbitmq": "turns"}
REPORTED_WITHIN = limit(60)
Repair = Callable[[], Awaitable[None]]
Break = Callable[[Rig, str], Awaitable[Repair]]
"""Breaks a store and returns its repair."""


async def killed(rig: Rig, store: str) -> Repair:
    node = rig.stores.all[store]
    await node.kill()
    return node.start


async def frozen(rig: Rig, store: str) -> Repair:
    node = rig.stores.postgres if store == "postgres" else None
    (node.freeze if node else rig.stores.all[store].pause)()

    async def repair() -> None:
        (node.thaw if node else rig.stores.all[store].resume)()

    return repair


def cut(mode: Mode) -> Break:
    async def break_it(rig: Rig, store: str) -> Repair:
        for slot in rig.slots:
            await slot.cut_off(store, mode)

        async def repair() -> None:
            for slot in rig.slots:
                await slot.cut_off(store, Mode.PASS)

        return repair

    return break_it


def lost(*losses: Loss) -> Break:
    async def break_it(rig: Rig, store: str) -> Repair:
        for lose in losses:
            await lose(rig.stores)
        return _nothing

    return break_it


async def _nothing() -> None:
    pass


def is_reported(store: str, name: str) -> bool:
    """Returns False if the outage is too short to be noticed: a silent RabbitMQ is noticed within 15 s."""
    return FULL or store != "rabbitmq" or name not in ("frozen", "silent")


FAULTS: list[tuple[str, str, Break, float]] = [
    *((store, "killed", killed, DEAD_FOR) for store in CHECK_OF),
    *((store, "frozen", frozen, FROZEN_FOR) for store in CHECK_OF),
    *((store, "reset", cut(Mode.RESET), DEAD_FOR) for store in CHECK_OF),
    *((store, "silent", cut(Mode.BLACKHOLE), SILENT_FOR) for store in CHECK_OF),
    ("redis", "emptied", lost(empty_redis), 0.0),
    ("rabbitmq", "emptied", lost(delete_queue), 0.0),
    ("redis", "closed", lost(close_redis_connections), 0.0),
    ("rabbitmq", "closed", lost(close_rabbitmq_connections), 0.0),
    ("postgres", "closed", lost(close_postgres_connections), 0.0),
    ("rabbitmq", "unrouted", lost(delete_exchange), 0.0),
]
"""The store, the name of its fault, the fault, and the shortest time in seconds for which it lasts."""
SMALL = {("postgres", "killed"), ("redis", "frozen"), ("rabbitmq", "silent"), ("rabbitmq", "emptied")}
CHOSEN = FAULTS if FULL else [fault for fault in FAULTS if fault[:2] in SMALL]


@pytest.mark.timeout(scale(240, 3600))
async def test_work_resumes_after_every_outage_without_a_restart(stores: Stores, tmp_path: Path) -> None:
    async with open_rig(tmp_path, stores, apis=1, executors=2, **STORM_SETTINGS) as rig:
        for store, name, break_it, seconds in CHOSEN:
            reported = seconds > 0 and is_reported(store, name)
            back = await outage(rig, f"{store}-{name}", store, break_it, seconds, reported=reported)
            record("I11", f"{store} {name}: traffic again after {back:.1f} s")
        async with asyncio.timeout(limit(60)):
            await quiet(rig)
            snapshot = await take_snapshot(rig)
        assert check(rig.history.events, snapshot) == [], rig.history.file
        assert {task.status for task in snapshot.tasks} == {"completed"}
        assert len(snapshot.tasks) == 3 * len(CHOSEN)
        assert {slot.starts for slot in rig.slots} == {1}


async def outage(rig: Rig, name: str, store: str, break_it: Break, seconds: float, *, reported: bool) -> float:
    """Runs one turn before and during the outage, asks one in it and one after it. Returns the seconds from the repair
    until the last one was answered."""
    async with open_client(new_user(), rig.bases, rig.history) as client, asyncio.timeout(limit(scale(120, 300))):
        sessions, reading = [await client.open_session() for _ in range(3)], Reading()
        through = asyncio.create_task(
            client.ask(sessions[0], f"{name}-1", question(f"{name}-1", 300, 10), reading=reading)
        )
        await reading.accepted.wait()
        await reading.until(20)
        repair = await break_it(rig, store)
        lasting = asyncio.create_task(asyncio.sleep(seconds))
        during = asyncio.create_task(client.ask(sessions[1], f"{name}-2", question(f"{name}-2", 20, 10)))
        if reported:
            await asyncio.gather(*(until_reported(slot, CHECK_OF[store]) for slot in rig.slots))
            await assert_served_or_503(rig, store)
        await lasting
        await repair()
        began = time.monotonic()
        await client.ask(sessions[2], f"{name}-3", question(f"{name}-3", 20, 10))
        back = time.monotonic() - began
        await asyncio.gather(through, during)
        await rig.ready()
        await until_consumers_are(rig.stores, len(rig.executors))
    assert back < BACK_WITHIN, f"{name}: {back:.1f} s"
    return back


async def until_reported(slot: ProcessSlot, check: str) -> None:
    """Waits until the process is live, but not ready because of that check. Each answer must come within three times
    READY_LIMIT."""
    async with (
        http_client(timeout=limit(3 * READY_LIMIT)) as http,
        asyncio.timeout(REPORTED_WITHIN),
    ):
        while True:
            assert (await http.get(f"{slot.url}/api/chat/health/live")).status_code == 200
            answer = await http.get(f"{slot.url}/api/chat/health/ready")
            if answer.status_code == 503 and answer.json()["checks"][check] is False:
                return
            await asyncio.sleep(0.1)  # between two checks of a bounded wait


async def assert_served_or_503(rig: Rig, store: str) -> None:
    """Asserts that a request is answered with 503 soon if it needs the unavailable store, and served otherwise."""
    async with http_client(timeout=ANSWERED_WITHIN, headers=bearer(new_user())) as http:
        with suppress(httpx.TransportError):
            answer = await http.get(f"{rig.bases[0]}/api/chat/sessions")
            if answer.status_code == 503:
                assert store == "postgres"
                assert int(answer.headers["retry-after"]) > 0
            else:
                assert answer.status_code == 200
