"""PostgreSQL lets nobody in, or its address leads to a standby, in mid-turn: no process ends, and no turn is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from backend.migrating import migrate
from tests.e2e.chat_api import asked, ending_of, history_of, open_session, task_of, text_in
from tests.e2e.sse import counted, text_of
from tests.e2e.stack import Child, Servers, Stack, new_user, open_stack, ready
from tests.faults.owners import postgres_connection
from tests.integration.catalog import execute
from tests.plain_http import http_client
from tests.servers.postgres import PostgresNode, standby_node
from tests.servers.proxy import FaultProxy, Mode
from tests.speed import limit

WORDS, DELAY = 100, 30
OUT_OF_REACH = limit(30)
Repair = Callable[[], Awaitable[None]]
Break = Callable[["Scene"], Awaitable[Repair]]


class Scene:
    """The servers of one test."""

    def __init__(self, primary: PostgresNode, standby: PostgresNode, address: FaultProxy) -> None:
        self.primary, self.standby, self.address = primary, standby, address


@pytest.fixture
async def scene(private_postgres: PostgresNode, cluster: Path, short_path: Path) -> AsyncIterator[Scene]:
    await migrate(private_postgres.dsn)
    await execute(private_postgres.dsn, "CREATE ROLE app SUPERUSER LOGIN")
    async with (
        standby_node(cluster, short_path / "standby") as standby,
        FaultProxy.before(private_postgres.dsn.replace("postgres@", "app@")) as address,
    ):
        yield Scene(private_postgres, standby, address)


@pytest.fixture
async def moved(scene: Scene, redis_dsn: str, tmp_path: Path) -> AsyncIterator[Stack]:
    dsn = f"{scene.address.dsn}&target_session_attrs=read-write"
    async with open_stack(Servers(dsn, redis_dsn), tmp_path) as stack:
        yield stack


async def nobody_may_log_in(scene: Scene) -> Repair:
    await execute(scene.primary.dsn, "ALTER ROLE app NOLOGIN")
    await execute(scene.primary.dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")

    async def repair() -> None:
        await execute(scene.primary.dsn, "ALTER ROLE app LOGIN")

    return repair


async def the_address_leads_to_a_standby(scene: Scene) -> Repair:
    scene.address.lead_to(scene.standby.dsn)
    await scene.address.switch(Mode.RESET)
    await scene.address.switch(Mode.PASS)

    async def repair() -> None:
        scene.address.lead_to(scene.primary.dsn)

    return repair


@pytest.mark.parametrize("break_it", [nobody_may_log_in, the_address_leads_to_a_standby])
async def test_a_postgres_that_lets_nobody_in_ends_no_process_and_no_turn(
    moved: Stack, scene: Scene, break_it: Break
) -> None:
    async with moved.client(new_user()) as http, asyncio.timeout(4 * OUT_OF_REACH):
        session = await open_session(http)
        async with asked(http, session, f"/stream {WORDS} {DELAY}") as stream:
            await stream.until(8)
            repair = await break_it(scene)
            await asyncio.gather(*(_misses_postgres(child) for child in moved.children))
            refused = await http.post(f"/api/chat/sessions/{session}/stream", json={"message": "and now?"})
            assert refused.status_code == 503
            await repair()
            await stream.rest()
        assert ending_of(stream.events) == "completed"
        assert text_of(stream.events) == counted(WORDS)
        assert text_in((await history_of(http, session))[-1]) == counted(WORDS)
        assert (await task_of(http, stream.task_id))["attempt"] == 1
        async with postgres_connection(scene.primary.dsn) as c:
            assert await c.fetchval("SELECT crashes FROM tasks WHERE id = $1", stream.task_id) == 0
        for child in moved.children:
            assert child.running
            await ready(child)


async def _misses_postgres(child: Child) -> None:
    """Waits until a process says that it has no PostgreSQL."""
    async with http_client(timeout=limit(20)) as http, asyncio.timeout(OUT_OF_REACH):
        while True:
            state = (await http.get(f"{child.url}/api/chat/health/ready")).json()
            if state["checks"]["postgres"] is False:
                return
            await asyncio.sleep(0.05)  # between two questions of a bounded wait
