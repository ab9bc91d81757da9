"""I2: an executor is killed with SIGKILL in mid-answer. Its reader continues within seconds, and the answer is
exact."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from random import Random

import pytest

from tests.e2e.chat_api import ending_of, history_of, open_session, read_with_cuts, task_of, text_in
from tests.e2e.conftest import over_both_queues
from tests.e2e.sse import Event, SseStream, counted, open_stream, text_of
from tests.e2e.stack import Stack, new_user
from tests.faults.figures import record
from tests.faults.owners import executor_named, owner_of, postgres_connection
from tests.faults.scale import FULL, scale
from tests.speed import limit

KILLS = scale(2, 50)
WORDS, DELAY = 100, 30
pytestmark = [over_both_queues, pytest.mark.timeout(scale(120, 1800))]


class Timed:
    """Reads a stream to its end and records when each event came."""

    def __init__(self, stream: SseStream) -> None:
        self.at: list[float] = []
        self._stream = stream

    async def read(self) -> list[Event]:
        async for _ in self._stream:
            self.at.append(time.monotonic())
        return self._stream.events

    def gap_after(self, moment: float) -> float:
        """Returns the longest silence after that moment, in seconds."""
        after = [moment, *(at for at in self.at if at > moment)]
        return max(later - earlier for earlier, later in pairwise(after))


async def test_the_next_chunk_comes_within_two_and_a_half_seconds_of_a_kill(stack: Stack, chance: Random) -> None:
    gaps = []
    async with stack.client(new_user()) as client, postgres_connection(stack.servers.postgres) as c:
        for _ in range(KILLS):
            session = await open_session(client)
            path = f"/api/chat/sessions/{session}/stream?accept=reset-step"
            async with open_stream(client, "POST", path, json={"message": f"/stream {WORDS} {DELAY}"}) as stream:
                timed = Timed(stream)
                reading = asyncio.create_task(timed.read())
                place = chance.randrange(5, 80)
                async with asyncio.timeout(limit(30)):
                    while (owner := executor_named(stack, await owner_of(c, stream.task_id) or "")) is None:
                        await asyncio.sleep(0.02)
                    while len(stream.events) < place:
                        await asyncio.sleep(0.01)  # shorter than the time between two chunks
                killed_at = time.monotonic()
                owner.process.kill()
                await asyncio.wait_for(reading, limit(60))
            gaps.append(timed.gap_after(killed_at))
            assert text_of(stream.events) == counted(WORDS)
            assert ending_of(stream.events) == "completed"
            row = await task_of(client, stream.task_id)
            assert (row["attempt"], row["status"]) == (2, "completed")
            assert text_of(await read_with_cuts(client, stream.task_id, [])) == counted(WORDS)
            assert text_in((await history_of(client, session))[-1]) == counted(WORDS)
            await owner.ended()
            await stack.start_executor()
    gaps.sort()
    p95 = gaps[int(len(gaps) * 0.95)]
    queue = "RabbitMQ" if stack.servers.rabbitmq else "Redis queue"
    record(
        "I2",
        f"{KILLS} x kill -9 in mid-answer, {queue}: the longest silence after it p50 {gaps[len(gaps) // 2]:.2f} s, "
        f"p95 {p95:.2f} s, max {gaps[-1]:.2f} s; texts exact",
    )
    assert p95 < limit(2.5 if FULL else 10)
