"""`make cluster`: starts the test bed with the product on it and keeps it until Ctrl-C.

Commands are read from the terminal: `help` lists them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path
from random import Random

import asyncpg

from backend.errors import ChildFailedError
from tests.bed.bed import APIS, EXECUTORS, NUMBERS, Bed, open_bed
from tests.bed.moves import MOVES
from tests.faults.rig.supervisor import Rig, open_rig
from tests.servers.hosts import why_not

_FOLDERS = Path("/tmp")
_PREFIX = "copilot-cluster-"
HELP = """
  hosts                     the hosts with their addresses
  cut HOST [both|in|out]    lose all packets of a host, or only those to it or from it
  lose HOST SHARE           lose a random share of its packets, such as 0.2
  join HOST                 end that
  move STORE                make another host the leader of redis, postgres or rabbitmq
  kill STORE                kill its leader, promote another host, and bring the old one back
  help"""


async def obey(bed: Bed, rig: Rig, words: list[str]) -> str:
    """Does what a command says. Returns the answer."""
    match words:
        case ["hosts"]:
            return addresses(bed, rig)
        case ["cut", host] if host in bed.hosts:
            await bed.hosts[host].partition("both")
        case ["cut", host, ("both" | "in" | "out") as direction] if host in bed.hosts:
            await bed.hosts[host].partition(direction)
        case ["lose", host, share] if host in bed.hosts:
            await bed.hosts[host].lose(float(share))
        case ["join", host] if host in bed.hosts:
            await bed.hosts[host].heal()
        case [("move" | "kill") as act, store] if store in MOVES:
            began = time.monotonic()
            known, repair = await MOVES[store]["command" if act == "move" else "kill"](bed, Random())
            await repair()
            return f"a new leader after {known - began:.1f} s, whole again after {time.monotonic() - began:.1f} s"
        case _:
            return HELP
    return "done"


def addresses(bed: Bed, rig: Rig) -> str:
    """Returns a line for each host."""
    urls = {slot.host.known_as: slot.url for slot in rig.slots if slot.host is not None}
    return "\n".join(f"  {name:12} {urls.get(name, host.address)}" for name, host in bed.hosts.items())


async def run(folder: Path) -> None:
    counts = ", ".join(f"{number} {kind}" for kind, number in NUMBERS.items())
    print(f"Starting hosts ({counts}); this takes a minute", flush=True)
    async with (
        open_bed(folder) as bed,
        open_rig(
            folder, bed.stores, apis=APIS, executors=EXECUTORS, network=bed.network, proxied=False,
            CHAT_PROVIDER="scripted", AUTH_MODE="none",
        ) as rig,
    ):  # fmt: skip
        print(f"{addresses(bed, rig)}\nThe page is at {rig.bases[0]}/ . Ctrl-C ends everything.{HELP}", flush=True)
        await _obey_lines(bed, rig)


async def _obey_lines(bed: Bed, rig: Rig) -> None:
    """Reads commands until SIGINT or SIGTERM. Goes on without a terminal."""
    ended = asyncio.Event()
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    if sys.stdin.isatty() or stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    waiting = asyncio.create_task(ended.wait())
    reading = asyncio.create_task(_each_line(bed, rig, lines))
    await waiting
    reading.cancel()
    await asyncio.wait({reading})


async def _each_line(bed: Bed, rig: Rig, lines: asyncio.StreamReader) -> None:
    while line := await lines.readline():
        try:
            print(await obey(bed, rig, line.decode().split()), flush=True)
        except (OSError, LookupError, ValueError, AssertionError, asyncpg.PostgresError, ChildFailedError) as error:
            print(f"failed: {error!r}", flush=True)


def _remove_old_folders() -> None:
    """Removes the files of beds that were killed. Their processes have ended with them."""
    for folder in _FOLDERS.glob(f"{_PREFIX}*"):
        if not Path(f"/proc/{folder.name.removeprefix(_PREFIX)}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    if why := why_not():
        sys.exit(f"make cluster cannot run here: {why}")
    _remove_old_folders()
    folder = _FOLDERS / f"{_PREFIX}{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        asyncio.run(run(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
