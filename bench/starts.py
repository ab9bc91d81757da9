"""Measures the CPU and wall time that each process needs to start. Usage: python -m bench.starts [RUNS [CHECKOUT ...]]

Each CHECKOUT needs its own .venv. Starts of this checkout and of the others alternate. The first start of each is not
counted, since it fills the caches of the file system.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench.servers import open_servers
from tests import ROOT
from tests.e2e.stack import JWT_KEY, Servers
from tests.servers.ports import free_port

RUNS = 9  # counted starts of each process
READY_WITHIN = 30.0  # seconds
PROGRAMS = {"API": ("PORT", "backend", "serve"), "executor": ("EXECUTOR_PORT", "executor")}
_ASK = b"GET /api/chat/health/ready HTTP/1.0\r\n\r\n"


async def start(checkout: Path, kind: str, settings: Mapping[str, str], folder: Path) -> tuple[float, float]:
    """Starts a process and stops it when it is ready. Returns CPU seconds and wall seconds until it is ready."""
    port_setting, *module = PROGRAMS[kind]
    port, begun = free_port(), time.perf_counter()
    with (folder / "starts.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            checkout / ".venv/bin/python", "-m", *module,
            cwd=folder, env={**settings, "PYTHONPATH": str(checkout), port_setting: str(port)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with asyncio.timeout(READY_WITHIN):
            while not await is_ready(port):
                await asyncio.sleep(0.01)
        return thread_seconds(process.pid), time.perf_counter() - begun
    finally:
        process.terminate()
        await process.wait()


async def is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(_ASK)
        return b" 200 " in await reader.readline()
    finally:
        writer.close()


def thread_seconds(pid: int) -> float:
    """Returns the CPU time of all threads of a process. `schedstat` counts nanoseconds, `stat` only 1/100 s."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


async def compare(servers: Servers, folder: Path, runs: int, checkouts: list[Path]) -> None:
    """Prints a row of figures for each checkout, process and queue."""
    settings = {
        "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), "PYTHONDONTWRITEBYTECODE": "1",
        "CHAT_PROVIDER": "scripted", "JWT_VERIFY_KEY": JWT_KEY,
    }  # fmt: skip
    for queue in ("redis", "rabbitmq"):
        chosen = {**settings, **servers.environment, "QUEUE": queue}
        for kind in PROGRAMS:
            times: dict[Path, list[tuple[float, float]]] = {checkout: [] for checkout in checkouts}
            for _ in range(1 + runs):
                for checkout in checkouts:
                    times[checkout].append(await start(checkout, kind, chosen, folder))
            for checkout in checkouts:
                cpu, wall = zip(*times[checkout][1:], strict=True)
                print(
                    f"| {kind:8} | {queue:8} | CPU {statistics.median(cpu):.3f} s, at least {min(cpu):.3f}"
                    f" | wall {statistics.median(wall):.3f} s | {checkout}",
                    flush=True,
                )


async def main() -> None:
    arguments = sys.argv[1:]
    runs = int(arguments[0]) if arguments else RUNS
    checkouts = [ROOT, *(Path(path).resolve() for path in arguments[1:])]
    async with open_servers() as (servers, folder):
        await compare(servers, folder, runs, checkouts)


if __name__ == "__main__":
    asyncio.run(main())
