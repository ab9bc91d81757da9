"""Compares whole turns over one Redis and over a cluster of three masters: `python -m bench.cluster`.

Both stacks are open at the same time, each with one API and one executor, and take turns, so that other work on the
machine meets both. The queue is in Redis, so the cluster carries everything that it can.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

import uvloop

from backend.embedded import embedded_servers
from backend.migrating import migrate
from bench.load import cpu_seconds
from bench.turns import ask
from tests.e2e.stack import Servers, Stack, open_stack
from tests.servers.postgres import empty_database
from tests.servers.redis import redis_node
from tests.servers.redis_cluster import redis_cluster

ROUNDS = 11
SESSIONS, CHUNKS = 30, 500
"""Concurrent sessions in a round, and chunks of each answer."""
ALONE = 10
"""Turns in a round, one after the other, whose first chunk is timed."""


class Figures:
    """The figures of one stack, one of each kind for each round."""

    def __init__(self) -> None:
        self.together: list[float] = []
        """Seconds until all sessions have their answers."""
        self.cpu: list[float] = []
        """Seconds of CPU time of API and executor for that."""
        self.first: list[float] = []
        """Seconds to the first chunk of a turn that runs alone."""

    async def measure(self, stack: Stack) -> None:
        pids = [child.process.pid for child in stack.children]
        began, cpu = time.perf_counter(), sum(map(cpu_seconds, pids))
        await asyncio.gather(*(ask(stack, f"/stream {CHUNKS}") for _ in range(SESSIONS)))
        self.together.append(time.perf_counter() - began)
        self.cpu.append(sum(map(cpu_seconds, pids)) - cpu)
        took = []
        for _ in range(ALONE):
            began = time.perf_counter()
            await ask(stack, "/stream 1")
            took.append(time.perf_counter() - began)
        self.first.append(median(took))


@asynccontextmanager
async def _stacks() -> AsyncIterator[tuple[Stack, Stack]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp")))
        embedded = await stack.enter_async_context(embedded_servers(folder / "data", redis=False))
        for name in ("one", "three", "logs-one", "logs-three"):
            (folder / name).mkdir()
        one = await stack.enter_async_context(redis_node(folder / "one"))
        three = await stack.enter_async_context(redis_cluster(folder / "three", replicas=False))
        opened = []
        for name, redis in (("logs-one", one.dsn), ("logs-three", three.dsn)):
            postgres = await stack.enter_async_context(empty_database(embedded.postgres_dsn))
            await migrate(postgres)
            settings = {"MAX_RUNNING_TURNS": "100", "MAX_WAITING_TURNS": "1000", "MAX_OPEN_STREAMS": "1000"}
            servers = Servers(postgres, redis)
            opened.append(await stack.enter_async_context(open_stack(servers, folder / name, **settings)))
        yield opened[0], opened[1]


def _ratio(cluster: Sequence[float], one: Sequence[float]) -> str:
    ratios = sorted(c / o for c, o in zip(cluster, one, strict=True))
    return f"{median(ratios):.2f} ({ratios[1]:.2f} to {ratios[-2]:.2f} without the extremes)"


async def main() -> None:
    async with _stacks() as (one, three):
        over_one, over_three = Figures(), Figures()
        await Figures().measure(one)
        await Figures().measure(three)
        for number in range(ROUNDS):
            pair = [(over_one, one), (over_three, three)]
            for figures, stack in pair if number % 2 else reversed(pair):
                await figures.measure(stack)
    what = f"{SESSIONS} turns of {CHUNKS} chunks at once"
    print(f"cluster / one server, medians of {ROUNDS} rounds")
    for name, of_cluster, of_one in (
        (f"{what}, time", over_three.together, over_one.together),
        (f"{what}, CPU of API and executor", over_three.cpu, over_one.cpu),
        ("a turn alone, time", over_three.first, over_one.first),
    ):
        print(f"{name}: {_ratio(of_cluster, of_one)}; {median(of_one):.3f} s with one")


if __name__ == "__main__":
    uvloop.run(main())
