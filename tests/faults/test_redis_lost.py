"""I16: when Redis loses everything in the middle of turns, no answer is lost and no client hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.e2e.chat_api import asked, history_of, open_session, task_of, text_in
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.faults.figures import record
from tests.faults.owners import postgres_connection
from tests.faults.scale import FULL, scale
from tests.faults.tabs import Tab, without_torn
from tests.servers.redis import RedisNode
from tests.speed import limit

LOSSES = scale(1, 50)
LONGEST_DOWN = scale(0.5, 8.0)
TURNS = 3
PROMISE = limit(20)
STEPS = [" ".join(f"{letter}{n}" for n in range(60)) for letter in "ab"]
QUESTION = '\n/tool add_understanding {"user_name":"Ada"}\n/then\n'.join(f"/say {step}" for step in STEPS)


@pytest.fixture(params=["rabbitmq", "redis"])
def servers_with_own_redis(request: pytest.FixtureRequest, postgres_dsn: str, private_redis: RedisNode) -> Servers:
    """Servers with a private Redis that the test may empty. The embedded queue, if used, is lost with it."""
    rabbitmq = request.getfixturevalue("rabbitmq_dsn") if request.param == "rabbitmq" else None
    return Servers(postgres_dsn, private_redis.dsn, rabbitmq)


@pytest.fixture
async def stack_with_own_redis(servers_with_own_redis: Servers, tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(servers_with_own_redis, tmp_path, apis=2, executors=2) as stack:
        yield stack


class Turn:
    """One question, a tab that reads its answer live, and a tab that comes after the loss."""

    def __init__(self, http: httpx.AsyncClient, bases: list[str], session: str, task: str) -> None:
        self.http, self.session, self.task = http, session, task
        self.live = Tab(http, bases, task, resets=True)
        self.late = Tab(http, bases, task)
        self._reading = asyncio.create_task(self.live.follow())

    async def until_chunks(self, chunks: int) -> None:
        while len(self.live.shown.chunks) < chunks:
            assert not self._reading.done()
            await asyncio.sleep(0.02)  # between two checks; the caller bounds the wait

    async def ended(self) -> float:
        """Waits until both tabs have the end, and returns the time."""
        await asyncio.gather(self._reading, self.late.follow(1))
        return time.monotonic()


@pytest.mark.timeout(scale(120, 3600))
async def test_losing_all_of_redis_loses_no_answer_and_hangs_no_client(
    stack_with_own_redis: Stack, private_redis: RedisNode, chance: Random
) -> None:
    waits: list[float] = []
    for _ in range(LOSSES):
        waits += await _lose_once(stack_with_own_redis, private_redis, chance)
    waits.sort()
    queue = "RabbitMQ" if stack_with_own_redis.servers.rabbitmq else "Redis queue"
    record(
        "I16",
        f"{LOSSES} x Redis lost with its data under {TURNS} turns, away <= {LONGEST_DOWN} s, {queue}: texts exact, "
        f"clients at the end p50 {waits[len(waits) // 2]:.1f} s, max {waits[-1]:.1f} s after; <= 2 attempts, no crash",
    )
    assert waits[-1] < (PROMISE if FULL else 3 * PROMISE)


async def _lose_once(stack: Stack, redis: RedisNode, chance: Random) -> list[float]:
    async with stack.client(new_user()) as http, asyncio.timeout(5 * PROMISE):
        turns = []
        for _ in range(TURNS):
            session = await open_session(http)
            async with asked(http, session, QUESTION) as stream:
                turns.append(Turn(http, [api.url for api in stack.apis], session, stream.task_id))
        await turns[-1].until_chunks(chance.randrange(3, 100))
        await redis.lose_all(down=chance.uniform(0, LONGEST_DOWN))
        lost_at = time.monotonic()
        ends = await asyncio.gather(*(turn.ended() for turn in turns))
        for turn in turns:
            await _judge(stack, turn)
    return [end - lost_at for end in ends]


async def _judge(stack: Stack, turn: Turn) -> None:
    for tab in (turn.live, turn.late):
        if tab.ended:
            assert tab.ending == "completed"
            assert without_torn(tab.shown.steps, STEPS)[0] == STEPS
    row = await task_of(turn.http, turn.task)
    assert row["status"] == "completed"
    assert row["attempt"] <= 2
    assert text_in((await history_of(turn.http, turn.session))[-1]) == "".join(STEPS)
    async with postgres_connection(stack.servers.postgres) as c:
        assert await c.fetchval("SELECT crashes FROM tasks WHERE id = $1", turn.task) == 0
