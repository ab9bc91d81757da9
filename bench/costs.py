"""Measures what a turn, a chunk, an open stream and a process cost, in CPU time and memory, for several checkouts.

Usage: python -m bench.costs [--rounds N] [--streams N] [--per-second N]
[--seconds N] [--rabbitmq] [--deltas | --turns] [CHECKOUT ...]

Each round runs every CHECKOUT (this one without any) once, one after the other, over the same private servers, then a
bare client of aiohttp and orjson that reads the same streams of the same fake model. CPU time depends on other work of
the machine far less than wall time, but not nothing: compare the figures of one run. Prints the median of the rounds
and, in brackets, the lowest and the highest. `--deltas` measures only what a delta costs, `--turns` only
what a turn costs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import orjson
import uvloop
from redis.asyncio import Redis

from bench.load import Stream, open_stream, percentile, receive, resident_bytes
from bench.servers import helper_process, open_servers
from bench.starts import READY_WITHIN, is_ready, thread_seconds
from tests import ROOT
from tests.e2e.stack import JWT_KEY, Servers, bearer, new_session, new_user
from tests.servers.ports import free_port

WARM_UP = 60
"""Short turns before those that are measured: connections are made, statements are prepared, modules are imported."""
TURNS = 300
"""Short turns that are measured."""
FIRSTS = 15
"""First chunks that are measured in a conversation."""
_PROGRAMS = {"API": ("PORT", "backend", "serve"), "executor": ("EXECUTOR_PORT", "executor")}
_SESSION = "INSERT INTO sessions (id, user_id, title, last_sequence) VALUES ($1, $2, 'Long', $3)"
_TASK = """
INSERT INTO tasks (id, session_id, user_id, quota_key, status, request)
VALUES ($1, $2, $3, 'user:' || $3, 'completed', '{}')"""
_MESSAGES = """
INSERT INTO messages (session_id, sequence, task_id, step, part, role, parts)
SELECT $1, n, $2, n, 0, CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
  json_build_array(json_build_object('type', 'text', 'text', repeat('some words of message ' || n || ' ', 5)))
FROM generate_series(1, $3::int) n"""


class Running:
    """The API and the executor of a checkout. `pids` are their processes; `started` the CPU seconds of their starts."""

    def __init__(self, base: str, pids: dict[str, int], started: dict[str, float]) -> None:
        self.base = base
        self.pids = pids
        self.started = started

    def cpu(self) -> dict[str, float]:
        return {name: thread_seconds(pid) for name, pid in self.pids.items()}


@asynccontextmanager
async def run(checkout: Path, settings: dict[str, str], folder: Path) -> AsyncIterator[Running]:
    """Starts the processes of a checkout and stops them at the end."""
    processes: dict[str, asyncio.subprocess.Process] = {}
    ports, started = {}, {}
    python = checkout / ".venv/bin/python"
    try:
        for name, (port_setting, *module) in _PROGRAMS.items():
            port = ports[name] = free_port()
            with (folder / f"{name}.log").open("ab") as log:
                processes[name] = await asyncio.create_subprocess_exec(
                    python if python.exists() else sys.executable, "-m", *module, stdout=log, stderr=log, cwd=folder,
                    env={**settings, "PYTHONPATH": str(checkout), port_setting: str(port)},
                )  # fmt: skip
            async with asyncio.timeout(READY_WITHIN):
                while not await is_ready(port):
                    await asyncio.sleep(0.01)
            started[name] = thread_seconds(processes[name].pid)
        pids = {name: process.pid for name, process in processes.items()}
        yield Running(f"http://127.0.0.1:{ports['API']}", pids, started)
    finally:
        for process in processes.values():
            process.kill()
            await process.wait()


def descendants(but: set[int]) -> list[int]:
    """Returns the processes below this one, without those of `but` and what is below them."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it has ended
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, left = [], [os.getpid()]
    while left:
        new = [pid for pid in children.get(left.pop(), ()) if pid not in but]
        found += new
        left += new
    return found


def all_cpu(but: set[int]) -> float:
    """Returns the CPU seconds so far of everything that runs here apart from the load and the model."""
    return sum(thread_seconds(pid) for pid in descendants(but))


async def ask(base: str, user: str, session: str, text: str) -> float:
    """Runs one turn to its end. Returns the seconds to its first chunk."""
    message = {"id": new_session(), "role": "user", "parts": [{"type": "text", "text": text}]}
    body = orjson.dumps({"id": session, "messages": [message], "trigger": "submit-message"})
    got = await receive(f"{base}/api/chat", body=body, headers=bearer(user))
    if not got.first_chunk_at:
        raise SystemExit(f"a turn has no text: {got.body[-500:]!r}")
    return got.first_chunk_at - got.asked_at


class Figures:
    """The rows of one checkout: a list of figures for each, one a round."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: dict[str, list[float]] = {}

    def add(self, row: str, figure: float) -> None:
        self.rows.setdefault(row, []).append(figure)


async def long_conversation(dsn: str, user: str, count: int) -> str:
    """Stores a conversation of `count` messages. Returns its id."""
    session = new_session()
    c = await asyncpg.connect(dsn)
    try:
        await c.execute(_SESSION, session, user, count)
        task = new_session()
        await c.execute(_TASK, task, session, user)
        await c.execute(_MESSAGES, session, task, count)
    finally:
        await c.close()
    return session


async def turns(running: Running, figures: Figures, servers: Servers, but: set[int]) -> None:
    for _ in range(WARM_UP):
        await ask(running.base, new_user(), new_session(), "/stream 5")
    for name, pid in running.pids.items():
        figures.add(f"memory, idle {name}, MB", resident_bytes(pid) / 1e6)
    before, ours, firsts = all_cpu(but), running.cpu(), []
    for _ in range(TURNS):
        firsts.append(await ask(running.base, new_user(), new_session(), "/stream 5"))
    now = running.cpu()
    figures.add("one short turn, all processes, CPU ms", (all_cpu(but) - before) / TURNS * 1e3)
    for name in running.pids:
        figures.add(f"  of it {name}, CPU ms", (now[name] - ours[name]) / TURNS * 1e3)
    figures.add("first chunk alone, p50, ms", percentile(firsts, 50) * 1e3)
    for count in (10, 2_000):
        user = new_user()
        session = await long_conversation(servers.postgres, user, count)
        took, ours = [], running.cpu()
        for _ in range(FIRSTS):
            took.append(await ask(running.base, user, session, "/stream 5"))
        now = running.cpu()
        figures.add(f"first chunk after {count} messages, p50, ms", percentile(took, 50) * 1e3)
        cpu = (now["executor"] - ours["executor"]) / FIRSTS * 1e3
        figures.add(f"executor, a turn after {count} messages, CPU ms", cpu)


async def chunks(running: Running, figures: Figures, count: int, seconds: float) -> None:
    """Opens `count` streams and measures them for a while."""
    memory = {name: resident_bytes(pid) for name, pid in running.pids.items()}
    streams: list[Stream] = []
    while len(streams) < count:
        streams += await asyncio.gather(*(_open(running.base) for _ in range(min(10, count - len(streams)))))
        await asyncio.sleep(0.1)
    deadline = time.monotonic() + 60
    while few := sum(len(stream.received.delays) < 3 for stream in streams):
        if time.monotonic() > deadline:
            print(f"{few} of {count} streams have not begun: {figures.name}", file=sys.stderr, flush=True)
            break
        await asyncio.sleep(0.2)
    await asyncio.sleep(1)
    for name, what in (("API", "an open stream in the API"), ("executor", "a running turn in the executor")):
        kilobytes = (resident_bytes(running.pids[name]) - memory[name]) / count / 1e3
        figures.add(f"memory of {what}, KB", kilobytes)
    seen, ours = [len(stream.received.delays) for stream in streams], running.cpu()
    await asyncio.sleep(seconds)
    now = running.cpu()
    delays = [delay for stream, n in zip(streams, seen, strict=True) for delay in stream.received.delays[n:]]
    for name in running.pids:
        figures.add(f"{name}, CPU µs a delta", (now[name] - ours[name]) / len(delays) * 1e6)
    figures.add("delay of a delta, p50, ms", percentile(delays, 50) * 1e3)
    for stream in streams:
        stream.transport.abort()


async def _open(base: str) -> Stream:
    message = {"id": new_session(), "role": "user", "parts": [{"type": "text", "text": "go on"}]}
    body = orjson.dumps({"id": new_session(), "messages": [message], "trigger": "submit-message"})
    return await open_stream(f"{base}/api/chat", body=body, headers=bearer(new_user()), stamped=True)


async def bare(model: str, count: int, seconds: float) -> float:
    """Returns the CPU microseconds a delta of the bare client."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.bare_client", model, str(count), str(seconds), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return float(said)


def show(of: dict[str, Figures], bare_ones: list[float]) -> None:
    first = next(iter(of))
    print(f"| {'measured':44} | {' | '.join(f'{name:>24}' for name in of)} | ratio to {first} |")
    print(f"|{'-' * 46}|{'|'.join('-' * 26 for _ in of)}|{'-' * 12}|")
    for row, before in of[first].rows.items():
        shown = [_shown(one.rows[row]) for one in of.values()]
        others = list(of.values())[1:]
        ratios = [f"{statistics.median(one.rows[row]) / statistics.median(before):.2f}" for one in others]
        print(f"| {row:44} | {' | '.join(f'{one:>24}' for one in shown)} | {' '.join(ratios)} |")
    if not bare_ones:
        return
    print(f"| {'bare client, CPU µs a delta':44} | {_shown(bare_ones):>24} |")
    for name, one in of.items():
        ratio = [mine / other for mine, other in zip(one.rows["executor, CPU µs a delta"], bare_ones, strict=True)]
        print(f"| {'executor to bare client, ratio a delta':44} | {name}: {_shown(ratio)} |", flush=True)


def _shown(figures: list[float]) -> str:
    return f"{statistics.median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"


async def main(given: argparse.Namespace) -> None:
    checkouts = {path.name: path for path in map(Path.resolve, given.checkouts or [ROOT])}
    of = {name: Figures(name) for name in checkouts}
    bare_ones = []
    for variable in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(variable, None)  # the servers are private: they are emptied between two runs
    lasting = str(int((given.seconds + 60) * given.per_second))
    async with (
        open_servers(rabbitmq=given.rabbitmq) as (servers, folder),
        helper_process("bench.model_server", lasting, str(given.per_second)) as port,
    ):
        model = f"http://127.0.0.1:{port}/v1"
        settings = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), "JWT_VERIFY_KEY": JWT_KEY,
            "CHAT_PROVIDER": "openai", "CHAT_API_KEY": "none", "CHAT_MODEL": "stamps", "CHAT_BASE_URL": model,
            "EXECUTOR_CONCURRENCY": str(given.streams + 10), "SHUTDOWN_GRACE": "0", "LOG_LEVEL": "WARNING",
            "MAX_NEW_SESSIONS": "100000", **servers.environment,
        }  # fmt: skip
        but = {pid for pid in descendants(set()) if "bench.model_server" in _command(pid)}
        for number in range(given.rounds):
            for name, checkout in checkouts.items():
                async with run(checkout, settings, folder) as running:
                    for process, cpu in running.started.items():
                        of[name].add(f"start of the {process}, CPU s", cpu)
                    if not given.deltas:
                        await turns(running, of[name], servers, but)
                    if not given.turns:
                        await chunks(running, of[name], given.streams, given.seconds)
                await _forget_turns(servers)
            if not given.turns:
                bare_ones.append(await bare(model, given.streams, given.seconds))
            print(f"round {number + 1} of {given.rounds}, {time.strftime('%H:%M:%S')}", file=sys.stderr, flush=True)
    show(of, bare_ones)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def _forget_turns(servers: Servers) -> None:
    """Forgets the turns that were running, so that the next executor does not take them over."""
    async with Redis.from_url(servers.redis) as redis:
        await redis.flushall()
    c = await asyncpg.connect(servers.postgres)
    try:
        await c.execute("TRUNCATE sessions CASCADE")
    finally:
        await c.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="what things cost")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=400)
    parser.add_argument("--per-second", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rabbitmq", action="store_true")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--deltas", action="store_true")
    only.add_argument("--turns", action="store_true")
    parser.add_argument("checkouts", nargs="*", type=Path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    uvloop.run(main(parser.parse_args()))
