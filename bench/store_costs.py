"""Measures what turns and open streams cost the stores: the figures that `bench.sizing` calculates with.

Usage: python -m bench.store_costs [--streams 300] [--per-second 5] [--seconds 20] [--turns 200] [--scripted]

The answers of the benchmark's model are time stamps: words that occur once, of which the index for the search becomes
large. `--scripted` takes the scripted model, whose answers have the same words, and measures only turns.

Runs one API and one executor over private servers: PostgreSQL, Valkey and RabbitMQ (or those of DATABASE_URL, REDIS_URL
and RABBITMQ_URL, without the CPU of the last). CPU is that of the stores' processes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import asyncpg
import uvloop
from redis.asyncio import Redis

from bench.costs import Running, ask, descendants, run
from bench.load import Stream, open_stream, resident_bytes
from bench.servers import helper_process, open_servers
from bench.starts import thread_seconds
from bench.turns import first_message
from tests import ROOT
from tests.e2e.stack import JWT_KEY, Servers, bearer, new_session, new_user

BEGIN_WITHIN = 60
"""Seconds in which all streams must have begun."""
_STREAM_TYPE = "stream"
_POSTGRES = """
SELECT sum(xact_commit + xact_rollback)::float8, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8,
  pg_database_size(current_database())::float8
FROM pg_stat_database"""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was used so far: seconds of CPU, counts, bytes. `redis_memory` is what is used now."""

    redis_cpu: float
    redis_commands: float
    redis_in: float
    redis_out: float
    redis_memory: float
    postgres_cpu: float
    transactions: float
    wal: float
    stored: float
    rabbitmq_cpu: float
    api_cpu: float
    executor_cpu: float

    def since(self, before: Sample) -> Sample:
        names = (one.name for one in fields(self))
        return Sample(*(getattr(self, name) - getattr(before, name) for name in names))


class Stores:
    """The stores of a run, and the processes that are measured."""

    def __init__(self, running: Running, redis: Redis, postgres: asyncpg.Connection) -> None:
        self._running = running
        self._redis = redis
        self._postgres = postgres

    async def sample(self) -> Sample:
        about = await self._redis.info()
        transactions, wal, stored = await self._postgres.fetchrow(_POSTGRES)
        own = self._running.cpu()
        return Sample(
            about["used_cpu_sys"] + about["used_cpu_user"], about["total_commands_processed"],
            about["total_net_input_bytes"], about["total_net_output_bytes"], about["used_memory"],
            _cpu_of("postgres"), transactions, wal, stored, _cpu_of("beam.smp"), own["API"], own["executor"],
        )  # fmt: skip

    async def calls(self) -> dict[str, int]:
        """Returns how often each command was run, those inside of scripts included."""
        return {
            name.removeprefix("cmdstat_"): one["calls"]
            for name, one in (await self._redis.info("commandstats")).items()
        }

    async def stream_bytes(self) -> tuple[int, float]:
        """Returns the number of streams in Redis, and the average of the memory of each."""
        keys = [key async for key in self._redis.scan_iter(b"chat:stream:*", _type=_STREAM_TYPE)]
        sizes = [await self._redis.memory_usage(key) or 0 for key in keys]
        return len(sizes), sum(sizes) / max(len(sizes), 1)

    async def connections(self) -> int:
        return int(await self._postgres.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL"))


def _cpu_of(name: str) -> float:
    return sum(thread_seconds(pid) for pid in _named(descendants(set()), name))


def _named(pids: Iterable[int], name: str) -> list[int]:
    found = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
        except OSError:
            continue  # it has ended
    return found


def say(what: str, value: float, unit: str) -> None:
    print(f"| {what:62} | {value:>12,.2f} {unit:8} |", flush=True)


async def idle(stores: Stores, seconds: float) -> Sample:
    """Measures one API and one executor in which nothing happens. Returns the use of a second."""
    before = await stores.sample()
    await asyncio.sleep(seconds)
    spent = (await stores.sample()).since(before)
    rest = Sample(*(getattr(spent, one.name) / seconds for one in fields(spent)))
    say("idle, commands to Redis", rest.redis_commands, "/s")
    say("idle, transactions of Postgres", rest.transactions, "/s")
    say("idle, CPU of RabbitMQ", rest.rabbitmq_cpu * 1e3, "ms/s")
    return rest


async def turns(running: Running, stores: Stores, rest: Sample, count: int, chunks: int) -> None:
    """Measures turns that come one after the other, each with an answer of `chunks` deltas at once."""
    for _ in range(20):
        await ask(running.base, new_user(), new_session(), f"/stream {chunks}")
    before, began = await stores.sample(), time.monotonic()
    for _ in range(count):
        await ask(running.base, new_user(), new_session(), f"/stream {chunks}")
    await asyncio.sleep(0.5)  # what follows an end
    took = time.monotonic() - began
    spent = (await stores.sample()).since(before)
    title = f"a turn of {chunks} deltas at once"
    for what, value, resting, unit, factor in (
        ("CPU of the API", spent.api_cpu, rest.api_cpu, "ms", 1e3),
        ("CPU of the executor", spent.executor_cpu, rest.executor_cpu, "ms", 1e3),
        ("CPU of Postgres", spent.postgres_cpu, rest.postgres_cpu, "ms", 1e3),
        ("CPU of Redis", spent.redis_cpu, rest.redis_cpu, "ms", 1e3),
        ("CPU of RabbitMQ", spent.rabbitmq_cpu, rest.rabbitmq_cpu, "ms", 1e3),
        ("transactions of Postgres", spent.transactions, rest.transactions, "", 1),
        ("WAL of Postgres", spent.wal, rest.wal, "KB", 1e-3),
        ("growth of the database", spent.stored, 0.0, "KB", 1e-3),
        ("commands to Redis", spent.redis_commands, rest.redis_commands, "", 1),
    ):
        say(f"{title}, {what}", (value - resting * took) / count * factor, unit)


async def streams(running: Running, stores: Stores, rest: Sample, given: argparse.Namespace) -> None:
    """Opens streams of `per_second` deltas and measures them while all run."""
    memory = {name: resident_bytes(pid) for name, pid in running.pids.items()}
    opened: list[Stream] = []
    while len(opened) < given.streams:
        opened += await asyncio.gather(*(_open(running.base) for _ in range(min(10, given.streams - len(opened)))))
        await asyncio.sleep(0.1)
    deadline = time.monotonic() + BEGIN_WITHIN
    while (late := sum(len(stream.received.delays) < 3 for stream in opened)) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    if late:
        print(f"{late} of {len(opened)} streams have not begun", flush=True)
    await asyncio.sleep(2)
    calls = await stores.calls()
    seen, before = sum(len(stream.received.delays) for stream in opened), await stores.sample()
    await asyncio.sleep(given.seconds)
    deltas = sum(len(stream.received.delays) for stream in opened) - seen
    spent = (await stores.sample()).since(before)
    title = f"{given.streams} streams × {given.per_second}/s"
    say(f"{title}, deltas", deltas / given.seconds, "/s")
    for what, value, resting in (
        ("CPU of the API", spent.api_cpu, rest.api_cpu),
        ("CPU of the executor", spent.executor_cpu, rest.executor_cpu),
        ("CPU of Redis", spent.redis_cpu, rest.redis_cpu),
    ):
        say(f"{title}, {what} for a delta", (value - resting * given.seconds) / deltas * 1e6, "µs")
    say(f"{title}, commands to Redis for a delta", spent.redis_commands / deltas, "")
    for name, count in sorted((await stores.calls()).items()):
        if (made := count - calls.get(name, 0)) > deltas / 1_000:
            say(f"  of them {name}", made / deltas, "")
    say(f"{title}, bytes into Redis for a delta", spent.redis_in / deltas, "B")
    say(f"{title}, bytes out of Redis for a delta", spent.redis_out / deltas, "B")
    say(
        f"{title}, transactions of Postgres for an open stream",
        spent.transactions / given.streams / given.seconds,
        "/s",
    )
    say(f"{title}, CPU of Postgres", spent.postgres_cpu / given.seconds * 1e3, "ms/s")
    say(f"{title}, CPU of RabbitMQ", spent.rabbitmq_cpu / given.seconds * 1e3, "ms/s")
    say(f"{title}, growth of Redis for a delta", spent.redis_memory / deltas, "B")
    count, size = await stores.stream_bytes()
    per_stream = sum(len(stream.received.delays) for stream in opened) / len(opened)
    say(f"{title}, memory in Redis of a stream with {per_stream:.0f} deltas ({count} keys)", size / 1e3, "KB")
    say(f"{title}, connections to Postgres", await stores.connections(), "")
    for name, what in (("API", "an open stream in the API"), ("executor", "a running turn in the executor")):
        grown = (resident_bytes(running.pids[name]) - memory[name]) / given.streams
        say(f"{title}, memory of {what}", grown / 1e3, "KB")
        say(f"{title}, open files of the {name}", len(list(Path(f"/proc/{running.pids[name]}/fd").iterdir())), "")
    for stream in opened:
        stream.transport.abort()


async def _open(base: str) -> Stream:
    body = first_message(new_session(), "go on")
    return await open_stream(f"{base}/api/chat", body=body, headers=bearer(new_user()), stamped=True)


async def measure(servers: Servers, folder: Path, model: str, given: argparse.Namespace) -> None:
    settings = {
        "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), "JWT_VERIFY_KEY": JWT_KEY,
        "CHAT_PROVIDER": "openai", "CHAT_API_KEY": "none", "CHAT_MODEL": "stamps", "CHAT_BASE_URL": model,
        "EXECUTOR_CONCURRENCY": str(given.streams + 10), "SHUTDOWN_GRACE": "0", "LOG_LEVEL": "WARNING",
        "MAX_NEW_SESSIONS": "100000", **servers.environment,
    }  # fmt: skip
    if given.scripted:
        settings["CHAT_PROVIDER"] = "scripted"
    postgres = await asyncpg.connect(servers.postgres)
    try:
        async with Redis.from_url(servers.redis) as redis, run(ROOT, settings, folder) as running:
            stores = Stores(running, redis, postgres)
            rest = await idle(stores, given.seconds)
            for chunks in (5, 300):
                await turns(running, stores, rest, given.turns, chunks)
            if given.scripted:
                return
            await redis.flushall()
            await streams(running, stores, rest, given)
    finally:
        await postgres.close()


async def main(given: argparse.Namespace) -> None:
    lasting = str(int((given.seconds + 2 * BEGIN_WITHIN) * given.per_second))
    async with (
        open_servers() as (servers, folder),
        helper_process("bench.model_server", lasting, str(given.per_second)) as port,
    ):
        await measure(servers, folder, f"http://127.0.0.1:{port}/v1", given)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="what turns and streams cost the stores")
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--per-second", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--scripted", action="store_true")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    uvloop.run(main(parser.parse_args()))
