"""I2: an executor is killed with SIGKILL while a model writes a summary. There is no half summary, the conversation
goes on, and another executor makes the summary, once."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import httpx
import pytest

from executor.llm.summaries import REQUEST
from tests.e2e.chat_api import converse, open_session
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.fakes.running import bodies_of, fake_server
from tests.faults.figures import record
from tests.faults.owners import postgres_connection
from tests.faults.scale import scale
from tests.speed import lasting, limit

KILLS = scale(1, 25)
LONG = "word " * 440
SLOW = lasting(1.0)
pytestmark = pytest.mark.timeout(scale(180, 3_600))


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with fake_server("openai") as url:
        yield url


@pytest.fixture
async def stack(servers: Servers, tmp_path: Path, url: str) -> AsyncIterator[Stack]:
    model = {"CHAT_PROVIDER": "openai", "CHAT_BASE_URL": f"{url}/v1", "CHAT_MODEL": "m"}
    limits = {"CHAT_CONTEXT_TOKENS": "6000", "CHAT_MAX_OUTPUT_TOKENS": "512"}
    async with open_stack(servers, tmp_path, **model, **limits) as stack:
        yield stack


async def test_a_summary_whose_executor_is_killed_is_made_by_another_one(
    stack: Stack, url: str, chance: Random
) -> None:
    async with stack.client(new_user()) as client, postgres_connection(stack.servers.postgres) as c:
        for number in range(KILLS):
            session, mark = await open_session(client), uuid.uuid4().hex
            slow = f"/summary /slow {SLOW}\n/summary /say All of it.\n"
            texts = [f"{mark} {turn} {LONG}\n{slow if turn == 0 else ''}/say ok" for turn in range(4)]
            await converse(client, session, *texts)
            if number == 0:
                await rows_of(c, session, least=1)
            else:
                await asyncio.sleep(chance.uniform(0, 2 * SLOW))  # anywhere: before, in the middle, after the end
            (executor,) = stack.executors
            executor.send(signal.SIGKILL)
            await executor.ended()
            rows = await rows_of(c, session)
            assert {row["text"] for row in rows} <= ({None} if number == 0 else {None, "All of it."})
            await stack.start_executor()
            await goes_on(client, session, mark)
            await c.execute(
                "UPDATE summaries SET claimed_until = now() WHERE session_id = $1", session
            )  # in two minutes
            await goes_on(client, session, mark)
            made = await rows_of(c, session, least=1, text="All of it.")
            assert len({row["through"] for row in made}) == len(made)
            await goes_on(client, session, mark)
            last = json.dumps((await bodies_of(url, mark))[-1]["messages"])
            assert REQUEST in last or "conversation_summary" in last
    record("I2", f"{KILLS} x kill -9 of an executor while a summary is written: none is half, another one makes it")


async def goes_on(client: httpx.AsyncClient, session: str, mark: str) -> None:
    """Has a turn that is answered, whether there is a summary or not."""
    await converse(client, session, f"{mark} more {LONG}\n/say ok")


async def rows_of(
    c: asyncpg.Connection, session: str, *, least: int = 0, text: str | None = None
) -> list[asyncpg.Record]:
    """Waits until the session has at least so many rows of summaries, with this text. Returns all of its rows."""
    async with asyncio.timeout(limit(60)):
        while True:
            rows: list[Any] = await c.fetch("SELECT * FROM summaries WHERE session_id = $1", session)
            if sum(row["text"] == text for row in rows) >= least:
                return rows
            await asyncio.sleep(0.05)  # between two checks of a bounded wait
