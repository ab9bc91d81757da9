"""Measures the whole path under load: HTTP, queue, executor, Redis Stream, API.

Usage: python -m bench.turns [--quick] [--many]. `--quick` measures fewer streams for a shorter time. `--many` measures
only the many open streams.

Everything runs on this machine, including the load. The servers are DATABASE_URL, REDIS_URL and RABBITMQ_URL, or
private ones. Some rows have a second figure for a plain FastAPI streaming response of the same chunks, measured in the
same run by the same client.

A "chunk" is a delta of the model. Under load, adjacent deltas are merged while a flush is in flight, so there are fewer
SSE events than chunks; both are shown. A wrong text in the rows of throughput and replay stops the run.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import httpx
import orjson
import uvloop

from bench.load import Received, Stream, cpu_seconds, open_stream, percentile, receive, resident_bytes
from bench.servers import helper_process, open_servers
from tests.e2e.stack import Stack, bearer, new_session, new_user, open_stack

QUICK = "--quick" in sys.argv
SESSIONS, CHUNKS = 30, 200
"""Concurrent sessions of the throughput test, and chunks of each answer."""
LONG = 10_000
"""Chunks of the replayed answer."""
OPEN_STREAMS = 200 if QUICK else 1_000
SECONDS = 5 if QUICK else 20
"""Length of the measurement with many streams."""
PER_SECOND = 5
"""Chunks per second of each of the many streams."""
ROUNDS = 5


def row(name: str, value: str, plain: str = "", ratio: str = "") -> None:
    print(f"| {name:52} | {value:>22} | {plain:>14} | {ratio:>7} |", flush=True)


def milliseconds(values: Sequence[float]) -> str:
    return f"p50 {percentile(list(values), 50) * 1e3:.1f}, p99 {percentile(list(values), 99) * 1e3:.1f} ms"


def first_message(session: str, text: str) -> bytes:
    message = {"id": new_session(), "role": "user", "parts": [{"type": "text", "text": text}]}
    return orjson.dumps({"id": session, "messages": [message], "trigger": "submit-message"})


async def ask(stack: Stack, text: str) -> Received:
    """Sends the first message of a new user and reads the whole stream."""
    body = first_message(new_session(), text)
    return await receive(f"{stack.base}/api/chat", body=body, headers=bearer(new_user()))


def exact(received: Received, chunks: int) -> None:
    """Exits if the received text is not the answer to `/stream chunks`."""
    wanted = "".join(f"{i} " for i in range(chunks))
    if received.text != wanted:
        raise SystemExit(f"a received text is wrong: {received.text[:200]!r}")


async def alone(stack: Stack) -> None:
    await ask(stack, "/stream 5")
    times = []
    for _ in range(50):
        received = await ask(stack, "/stream 5")
        times.append(received.first_chunk_at - received.asked_at)
    row("first chunk, alone (50 turns)", milliseconds(times))


async def together(stack: Stack, plain: str) -> None:
    """Runs SESSIONS turns of CHUNKS chunks at once, and as many plain streams, in ROUNDS rounds."""
    first: list[float] = []
    rates, events, plain_rates = [], [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        got = await asyncio.gather(*(ask(stack, f"/stream {CHUNKS}") for _ in range(SESSIONS)))
        took = max(one.done_at for one in got) - began
        for one in got:
            exact(one, CHUNKS)
        rates.append(SESSIONS * CHUNKS / took)
        events.append(sum(one.events for one in got) / (SESSIONS * CHUNKS))
        first += [one.first_chunk_at - one.asked_at for one in got]
        began = time.perf_counter()
        bare = await asyncio.gather(*(receive(f"{plain}/plain?n={CHUNKS}") for _ in range(SESSIONS)))
        plain_rates.append(SESSIONS * CHUNKS / (max(one.done_at for one in bare) - began))
    ratio = f"{max(rates) / max(plain_rates):.2f}"
    row(
        f"chunks/s, {SESSIONS} sessions × {CHUNKS} (best of {ROUNDS})",
        f"{max(rates):,.0f}",
        f"{max(plain_rates):,.0f}",
        ratio,
    )
    row(f"chunks/s, median of {ROUNDS}", f"{percentile(rates, 50):,.0f}", f"{percentile(plain_rates, 50):,.0f}")
    row("SSE events per chunk", f"{percentile(events, 50):.3f}")
    row("first chunk under this load", milliseconds(first))


async def replay(stack: Stack, plain: str) -> None:
    user, session = new_user(), new_session()
    body = first_message(session, f"/stream {LONG} 1")
    live = await receive(f"{stack.base}/api/chat", body=body, headers=bearer(user))
    exact(live, LONG)
    async with httpx.AsyncClient(trust_env=False, headers=bearer(user)) as client:
        rows = (await client.get(f"{stack.base}/api/chat/sessions/{session}")).json()
    task = rows["messages"][-1]["task_id"]
    times, plain_times = [], []
    for _ in range(5):
        again = await receive(f"{stack.base}/api/chat/tasks/{task}/stream", headers=bearer(user))
        exact(again, LONG)
        times.append(again.done_at - again.asked_at)
        bare = await receive(f"{plain}/plain?n={LONG}")
        plain_times.append(bare.done_at - bare.asked_at)
    best, bare_best = min(times) * 1e3, min(plain_times) * 1e3
    row(
        f"replay of {LONG:,} chunks (stored as {live.events:,})",
        f"{best:.1f} ms",
        f"{bare_best:.1f} ms",
        f"{bare_best / best:.2f}",
    )


async def many_streams(stack: Stack) -> None:
    """Opens streams that each get PER_SECOND chunks a second. Measures their delays and the CPU of each process."""
    api = next(child for child in stack.children if child.name.startswith("api"))
    pids = {child.name: child.process.pid for child in stack.children}
    before = resident_bytes(api.process.pid)
    streams: list[Stream] = []
    while len(streams) < OPEN_STREAMS:
        streams += await asyncio.gather(*(_open(stack) for _ in range(min(25, OPEN_STREAMS - len(streams)))))
        await asyncio.sleep(0.1)
    async with asyncio.timeout(60):  # until all run and the burst at the start is over
        while min(len(stream.received.delays) for stream in streams) < PER_SECOND:
            await asyncio.sleep(0.2)
    await asyncio.sleep(5)
    memory = (resident_bytes(api.process.pid) - before) / OPEN_STREAMS / 1024
    cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
    seen = [len(stream.received.delays) for stream in streams]
    began = time.perf_counter()
    await asyncio.sleep(SECONDS)
    took = time.perf_counter() - began
    delays = [delay for stream, n in zip(streams, seen, strict=True) for delay in stream.received.delays[n:]]
    cpu = {name: (cpu_seconds(pid) - cpu[name]) / took * 100 for name, pid in pids.items()}
    row(f"memory of the API per open stream, at {OPEN_STREAMS:,}", f"{memory:.1f} KB")
    row(f"{OPEN_STREAMS:,} streams × {PER_SECOND} chunks/s: delivered/s", f"{len(delays) / took:,.0f}")
    row("  delivery latency", milliseconds(delays))
    row("  CPU", ", ".join(f"{name} {percent:.0f} %" for name, percent in cpu.items()))
    for stream in streams:
        stream.transport.abort()


async def _open(stack: Stack) -> Stream:
    body = first_message(new_session(), "go on")
    return await open_stream(f"{stack.base}/api/chat", body=body, headers=bearer(new_user()), stamped=True)


async def main() -> None:
    async with AsyncExitStack() as cleanup:
        servers, folder = await cleanup.enter_async_context(open_servers())
        plain = await cleanup.enter_async_context(helper_process("bench.plain_server"))
        row("measured", "CoPilot", "plain FastAPI", "ratio")
        row("-" * 52, "-" * 22, "-" * 14, "-" * 7)
        if "--many" not in sys.argv:
            async with open_stack(servers, folder, LOG_LEVEL="WARNING") as stack:
                await alone(stack)
                await together(stack, f"http://127.0.0.1:{plain}")
                await replay(stack, f"http://127.0.0.1:{plain}")
        seconds = SECONDS + 60  # the first streams run while the others open
        model = await cleanup.enter_async_context(
            helper_process("bench.model_server", str(seconds * PER_SECOND), str(PER_SECOND))
        )
        settings = {
            "CHAT_PROVIDER": "openai",
            "CHAT_API_KEY": "none",
            "CHAT_MODEL": "stamps",
            "CHAT_BASE_URL": f"http://127.0.0.1:{model}/v1",
            "EXECUTOR_CONCURRENCY": str(OPEN_STREAMS),
            "SHUTDOWN_GRACE": "0",
            "LOG_LEVEL": "WARNING",
        }
        async with open_stack(servers, folder, **settings) as stack:
            await many_streams(stack)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    uvloop.run(main())
