"""I11, I12: each store is killed, frozen, cut off or emptied in mid-turn. Nobody restarts anything of ours by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import bearer, new_user
from tests.faults.figures import record
from tests.faults.rig.checker import check
from tests.faults.rig.clients import open_client
from tests.faults.rig.losses import (
    Loss,
    close_postgres_connections,
    close_rabbitmq_connections,
    close_redis_connections,
    consumers_are,
    delete_exchange,
    delete_queue,
    empty_redis,
)
from tests.faults.rig.model import question
from tests.faults.rig.readings import Reading
from tests.faults.rig.seats import Seat
from tests.faults.rig.snapshot import quiet, take_snapshot
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, Stores, open_rig
from tests.faults.scale import FULL, scale
from tests.servers.proxy import Mode

FROZEN_FOR, SILENT_FOR, DEAD_FOR = scale(3.0, 30.0), scale(7.0, 60.0), 3.0
BACK_WITHIN = 15.0
ANSWERED_WITHIN = 20.0
"""Postgres: 5 s for a connection and 10 s for a statement, at the longest."""
CHECK_OF = {"postgres": "postgres", "redis": "redis", "rabbitmq": "turns"}
Break = Callable[[Rig, str], Awaitable[Callable[[], Awaitable[None]]]]
"""Breaks a store; returns what repairs it."""


async def killed(rig: Rig, store: str) -> Callable[[], Awaitable[None]]:
    node = rig.stores.all[store]
    await node.kill()

    async def repair() -> None:
        await asyncio.sleep(DEAD_FOR)  # how long it is away
        await node.start()

    return repair


async def frozen(rig: Rig, store: str) -> Callable[[], Awaitable[None]]:
    node = rig.stores.postgres if store == "postgres" else None
    (node.freeze if node else rig.stores.all[store].pause)()

    async def repair() -> None:
        await asyncio.sleep(FROZEN_FOR)
        (node.thaw if node else rig.stores.all[store].resume)()

    return repair


def cut(mode: Mode, seconds: float) -> Break:
    async def break_it(rig: Rig, store: str) -> Callable[[], Awaitable[None]]:
        for seat in rig.seats:
            await seat.cut_off(store, mode)

        async def repair() -> None:
            await asyncio.sleep(seconds)
            for seat in rig.seats:
                await seat.cut_off(store, Mode.PASS)

        return repair

    return break_it


def lost(*losses: Loss) -> Break:
    async def break_it(rig: Rig, store: str) -> Callable[[], Awaitable[None]]:
        for lose in losses:
            await lose(rig.stores)
        return _nothing

    return break_it


async def _nothing() -> None:
    pass


def is_told(store: str, name: str) -> bool:
    """Whether it lasts long enough to be known: a RabbitMQ that is silent is noticed within 15 s."""
    return FULL or store != "rabbitmq" or name not in ("frozen", "silent")


FAULTS: list[tuple[str, str, Break, bool]] = [
    *((store, "killed", killed, True) for store in CHECK_OF),
    *((store, "frozen", frozen, True) for store in CHECK_OF),
    *((store, "reset", cut(Mode.RESET, DEAD_FOR), True) for store in CHECK_OF),
    *((store, "silent", cut(Mode.BLACKHOLE, SILENT_FOR), True) for store in CHECK_OF),
    ("redis", "emptied", lost(empty_redis), False),
    ("rabbitmq", "emptied", lost(delete_queue), False),
    ("redis", "closed", lost(close_redis_connections), False),
    ("rabbitmq", "closed", lost(close_rabbitmq_connections), False),
    ("postgres", "closed", lost(close_postgres_connections), False),
    ("rabbitmq", "unrouted", lost(delete_exchange), False),
]
SMALL = {("postgres", "killed"), ("redis", "frozen"), ("rabbitmq", "silent"), ("rabbitmq", "emptied")}
CHOSEN = FAULTS if FULL else [fault for fault in FAULTS if fault[:2] in SMALL]


@pytest.mark.timeout(scale(240, 3600))
async def test_every_outage_is_survived_without_a_hand(stores: Stores, tmp_path: Path) -> None:
    async with open_rig(tmp_path, stores, apis=1, executors=2, **STORM_SETTINGS) as rig:
        for store, name, break_it, is_away in CHOSEN:
            back = await outage(rig, f"{store}-{name}", store, break_it, is_away=is_away and is_told(store, name))
            record("I11", f"{store} {name}: traffic again after {back:.1f} s")
        async with asyncio.timeout(60):
            await quiet(rig)
            snapshot = await take_snapshot(rig)
        assert check(rig.history.events, snapshot) == [], rig.history.file
        assert {task.status for task in snapshot.tasks} == {"completed"}
        assert len(snapshot.tasks) == 3 * len(CHOSEN)
        assert {seat.lives for seat in rig.seats} == {1}


async def outage(rig: Rig, name: str, store: str, break_it: Break, *, is_away: bool) -> float:
    """One turn runs through it, one is asked in it, one after it. How long after the repair that was answered."""
    async with open_client(new_user(), rig.bases, rig.history) as client, asyncio.timeout(scale(120, 300)):
        sessions, reading = [await client.open_session() for _ in range(3)], Reading()
        through = asyncio.create_task(
            client.ask(sessions[0], f"{name}-1", question(f"{name}-1", 300, 10), reading=reading)
        )
        await reading.accepted.wait()
        await reading.until(20)
        repairing = asyncio.create_task((await break_it(rig, store))())
        during = asyncio.create_task(client.ask(sessions[1], f"{name}-2", question(f"{name}-2", 20, 10)))
        if is_away:
            await asyncio.gather(*(says_what_is_away(seat, CHECK_OF[store], repairing) for seat in rig.seats))
            await serves_or_says_503(rig, store)
        await repairing
        began = time.monotonic()
        await client.ask(sessions[2], f"{name}-3", question(f"{name}-3", 20, 10))
        back = time.monotonic() - began
        await asyncio.gather(through, during)
        await rig.ready()
        await consumers_are(rig.stores, len(rig.executors))
    assert back < BACK_WITHIN, f"{name}: {back:.1f} s"
    return back


async def says_what_is_away(seat: Seat, check: str, while_away: asyncio.Task[None]) -> None:
    """Live, and not ready because of that; asked for as long as it is away, as a freeze may be short."""
    red = False
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http, asyncio.timeout(SILENT_FOR + 30):
        while not red and not while_away.done():
            assert (await http.get(f"{seat.url}/api/chat/health/live")).status_code == 200
            answer = await http.get(f"{seat.url}/api/chat/health/ready")
            red = answer.status_code == 503 and answer.json()["checks"][check] is False
            await asyncio.sleep(0.1)
    assert red, f"{seat.kind} did not say that {check} is away"


async def serves_or_says_503(rig: Rig, store: str) -> None:
    """What needs the store that is away says so, soon; what does not is served."""
    async with httpx.AsyncClient(trust_env=False, timeout=ANSWERED_WITHIN, headers=bearer(new_user())) as http:
        with suppress(httpx.TransportError):
            answer = await http.get(f"{rig.bases[0]}/api/chat/sessions")
            if answer.status_code == 503:
                assert store == "postgres"
                assert int(answer.headers["retry-after"]) > 0
            else:
                assert answer.status_code == 200
