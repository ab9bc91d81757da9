"""I30: under a steady load, memory, open files, connections and keys do not grow. Slopes are compared, not end
points."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from itertools import count
from pathlib import Path
from random import Random

import pytest
from redis.asyncio import Redis

from tests.e2e.stack import new_user
from tests.faults.figures import record
from tests.faults.owners import postgres_connection
from tests.faults.rig.clients import open_client
from tests.faults.rig.model import answer_to, question
from tests.faults.rig.supervisor import STORM_SETTINGS, Rig, Stores, open_rig
from tests.faults.scale import FULL, scale
from tests.faults.slopes import slope_of

SECONDS, SAMPLE_EVERY, WARM_UP = scale(12, 1200), scale(1, 10), scale(4, 300)
USERS = scale(3, 8)
RUSH = scale(5, 60)
"""Users that ask once at the beginning, so that the connection pools reach their full size."""
STREAM_TTL = 30
"""Seconds. Ended streams expire within the run, so the number of keys becomes constant."""
POOLS = 30
"""The most by which the pools of three processes may vary: ten connections to Postgres each, and fewer to Redis."""
pytestmark = pytest.mark.timeout(scale(120, 3600))
Samples = dict[str, list[float]]


def test_a_slope_shows_a_leak_and_ignores_noise() -> None:
    chance = Random(1)
    hours = [n / 360 for n in range(90)]
    noise = [200 + chance.gauss(0, 0.5) for _ in hours]
    assert slope_of(hours, noise).at_least < 1
    assert slope_of(hours, [value + 20 * hour for value, hour in zip(noise, hours, strict=True)]).at_least > 1
    assert slope_of([0, 1, 2], [5, 7, 9]).value == 2


async def test_a_steady_load_makes_nothing_grow(stores: Stores, tmp_path: Path) -> None:
    settings = {**STORM_SETTINGS, "STREAM_TTL": str(STREAM_TTL), "LOG_LEVEL": "WARNING"}
    async with open_rig(tmp_path, stores, apis=1, executors=2, **settings) as rig:
        numbers, over = count(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for n in range(RUSH):
                group.create_task(ask_once(rig, n))
            asking = [group.create_task(ask_on(rig, numbers, over)) for _ in range(USERS)]
            samples = await sample(rig)
            over.set()
        turns = sum(job.result() for job in asking)
    assert turns >= USERS
    hours = [t / 3600 for t in samples.pop("time")]
    slopes = {name: slope_of(hours, values) for name, values in samples.items()}
    for name, slope in slopes.items():
        print(f"{name}: {samples[name][0]:g} to {samples[name][-1]:g}, an hour {slope}")
    if FULL:
        rss = ", ".join(f"{name} {slope}" for name, slope in slopes.items() if name.startswith("rss"))
        flat = {name: slope for name, slope in slopes.items() if not name.startswith("rss")}
        record("I30", f"{SECONDS / 60:.0f} minutes, {turns} turns; MB an hour: {rss}; an hour: {_listed(flat)}")
        assert all(
            slope.at_least < (1 if name.startswith("rss") else 6) for name, slope in slopes.items() if not _pooled(name)
        )
    for name, values in samples.items():
        assert not _pooled(name) or max(values) - min(values) <= POOLS, name


def _pooled(name: str) -> bool:
    """Returns True for the sizes of pools. They vary with other work on the machine, so they have a cap, not a
    slope."""
    return name.startswith(("fds", "postgres"))


def _listed(slopes: dict[str, object]) -> str:
    return ", ".join(f"{name} {slope}" for name, slope in slopes.items())


async def ask_on(rig: Rig, numbers: count[int], over: asyncio.Event) -> int:
    """Asks a user's questions one after the other, in conversations of ten, and asserts that each answer is exact.
    Returns their number."""
    answered = 0
    async with open_client(new_user(), rig.bases, rig.history) as client:
        while not over.is_set():
            session = await client.open_session()
            for _ in range(10):
                text = question(f"q{next(numbers)}", 40, 25)
                reading = await client.ask(session, f"m{answered}", text)
                assert reading.seen.text == answer_to(text)
                answered += 1
                if over.is_set():
                    break
    return answered


async def ask_once(rig: Rig, number: int) -> None:
    async with open_client(new_user(), rig.bases, rig.history) as client:
        await client.ask(await client.open_session(), "rush", question(f"rush{number}", 40, 25))


async def sample(rig: Rig) -> Samples:
    """Takes samples every SAMPLE_EVERY seconds after the warm-up. Returns them by name."""
    samples: Samples = defaultdict(list)
    began = time.monotonic()
    async with Redis.from_url(rig.stores.redis.dsn) as redis, postgres_connection(rig.stores.postgres.dsn) as c:
        while (now := time.monotonic() - began) < SECONDS:
            if now > WARM_UP:
                samples["time"].append(now)
                for slot in rig.slots:
                    assert slot.child is not None
                    pid = slot.child.process.pid
                    samples[f"rss {slot.child.name}"].append(_rss(pid))
                    samples[f"fds {slot.child.name}"].append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
                samples["redis clients"].append((await redis.info("clients"))["connected_clients"])
                samples["redis keys"].append(await redis.dbsize())
                samples["postgres connections"].append(await c.fetchval("SELECT count(*) FROM pg_stat_activity"))
            await asyncio.sleep(SAMPLE_EVERY)
    return samples


def _rss(pid: int) -> float:
    """Returns the resident memory in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
