"""I10: a turn that kills every process it runs in fails after three deaths, and harms no other turn."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.chat_api import asked, ending_of, history_of, open_session, read_with_cuts, task_of
from tests.e2e.sse import PACE, counted, text_of, words_for
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.faults.figures import record
from tests.faults.owners import kill_owner, postgres_connection
from tests.faults.scale import FULL, scale
from tests.speed import limit

GOOD = scale(8, 50)
pytestmark = [
    pytest.mark.timeout(scale(240, 900)),
    pytest.mark.parametrize("servers", ["rabbitmq", "redis"] if FULL else ["rabbitmq"], indirect=True, scope="module"),
]


@pytest.fixture
async def pair(servers: Servers, tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(servers, tmp_path, executors=2, MAX_OPEN_STREAMS="100", MAX_RUNNING_TURNS="100") as stack:
        yield stack


def starts_of(stack: Stack, task: str) -> int:
    logs = (child.log.read_text() for child in stack.children)
    return sum("turn runs  " in line and task in line for log in logs for line in log.splitlines())


async def test_a_poison_turn_fails_after_three_deaths_and_the_others_are_answered(pair: Stack) -> None:
    async with pair.client(new_user()) as client, postgres_connection(pair.servers.postgres) as c:
        good = [asyncio.create_task(_answered(client)) for _ in range(GOOD)]
        session = await open_session(client)
        async with asked(client, session, "/stream 100000 20") as poison:
            executors_killed = 0
            reading = asyncio.create_task(poison.rest())
            for death in range(3):
                await has_begun(pair, poison.task_id, death + 1)
                if await kill_owner(pair, c, poison.task_id):
                    executors_killed += 1
                    await pair.start_executor()
            await asyncio.wait_for(reading, limit(60))
        assert ending_of(poison.events) == "failed"
        row = await task_of(client, poison.task_id)
        assert (row["status"], row["error"]["code"], row["attempt"]) == ("failed", "crashed", 4)
        assert starts_of(pair, poison.task_id) == 4  # three that died, and the one that ends it
        assert executors_killed == 2  # the third death was a child's
        assert await asyncio.wait_for(asyncio.gather(*good), limit(scale(90, 500))) == [True] * GOOD
    record(
        "I10", f"poison failed after 3 deaths, {executors_killed} of them of an executor; {GOOD}/{GOOD} others exact"
    )


async def test_a_child_process_finishes_its_turn_when_its_executor_dies(pair: Stack) -> None:
    async with pair.client(new_user()) as client, postgres_connection(pair.servers.postgres) as c:
        session, words = await open_session(client), words_for(6)
        async with asked(client, session, f"/stream {words} {PACE}") as stream:
            reading = asyncio.create_task(stream.rest())
            for death in range(2):
                await has_begun(pair, stream.task_id, death + 1)
                assert await kill_owner(pair, c, stream.task_id)
                await pair.start_executor()
            await has_begun(pair, stream.task_id, 3)
            parent = next(
                e
                for e in pair.executors
                if f"turn runs in a child process  task_id={stream.task_id}" in e.log.read_text()
            )
            parent.send(signal.SIGKILL)
            await asyncio.wait_for(reading, limit(60))
        assert ending_of(stream.events) == "completed"
        assert text_of(await read_with_cuts(client, stream.task_id, [])) == counted(words)
        assert starts_of(pair, stream.task_id) == 3


async def has_begun(stack: Stack, task: str, times: int) -> None:
    """Waits until so many attempts at the task have begun."""
    async with asyncio.timeout(limit(90)):
        while starts_of(stack, task) < times:
            await asyncio.sleep(0.05)


async def _answered(client: httpx.AsyncClient) -> bool:
    session = await open_session(client)
    async with asked(client, session, "/stream 60 50") as stream:
        await stream.rest()
        task = stream.task_id
    text = text_of(await read_with_cuts(client, task, []))
    return (
        text == counted(60) and ending_of(stream.events) == "completed" and len(await history_of(client, session)) == 2
    )
