"""Hosts of their own on this machine: network namespaces, each with a cable (veth) to one switch (bridge).

async with open_hosts(2) as network:
    await start(network.hosts[0].program("executor"), ...)  # what it reaches is at `network.gateway`
    await network.hosts[0].partition("both")  # no packet arrives, and nothing says so
    await network.hosts[0].heal()

The tests themselves are at the gateway. Other programs, such as stores, run on a host by `Host.inside`. Packets are
lost at the switch's end of a cable, by filters (tc, cls_bpf). Needs Linux, root and iproute2. Run as a program, this
module enters a namespace: `python -m tests.servers.hosts NAMESPACE MODULE [ARGUMENT ...]` is `python -m MODULE` on that
host.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from tests.speed import limit

Direction = Literal["both", "out", "in"]
"""The packets that a partition loses: all, those of the host, or those to the host."""
DIRECTIONS: tuple[Direction, ...] = ("both", "out", "in")
NETWORKS = ipaddress.ip_network("198.18.0.0/15")
"""Addresses that RFC 2544 reserves for tests of networks. Each test process takes 256 of them, by its pid."""
_HOOKS = {"out": ("ingress",), "in": ("egress",), "both": ("ingress", "egress")}
"""Where the switch meets the packets of each direction: those of a host come in, those to it go out."""
_RANDOM = 0xFFFFF038
"""The place from which a packet filter loads a random number of 32 bits (SKF_AD_OFF + SKF_AD_RANDOM)."""
_PASS, _DROP = 0xFFFFFFFF, 2
"""TC_ACT_UNSPEC and TC_ACT_SHOT, what a packet filter returns."""
_NAMES = Path("/etc/netns")
"""`ip netns exec NAME` shows the files in NAME here in the place of those in /etc."""
_INTERFACE = "eth0"
_OURS = re.compile(r"cp(\d+)(?:-\d+|sw)")
"""The names of hosts and switches, with the last digits of the pid of their test process."""
_COMMAND_LIMIT = limit(20)
_CLONE_NEWNET = 0x40000000
"""The flag of setns(2) for a network namespace."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host. `name` is its namespace and its cable at the switch, `known_as` the name by which other hosts know it."""

    name: str
    address: str
    gateway: str
    known_as: str = ""

    def program(self, *program: str) -> Sequence[str]:
        """Returns what `python -m` runs to run `python -m PROGRAM` on this host."""
        return (__name__, self.name, *program)

    def inside(self, *command: str | Path) -> list[str | Path]:
        """Returns the command line that runs a program on this host. It knows the other hosts by their names."""
        return [shutil.which("ip") or "ip", "netns", "exec", self.name, *command]

    async def partition(self, direction: Direction) -> None:
        """Loses packets without a word: nobody gets an error, a RST or an unreachable address."""
        await self.lose(1.0, direction)

    async def lose(self, share: float, direction: Direction = "both") -> None:
        """Loses a random share of the packets, from 0 to 1."""
        await _run("tc", "qdisc", "replace", "dev", self.name, "clsact")
        for hook in _HOOKS[direction]:
            filtered = ("filter", "replace", "dev", self.name, hook, "pref", "1", "protocol", "all")
            await _run("tc", *filtered, "bpf", "da", "bytecode", _losing(share))

    async def heal(self) -> None:
        await _run("tc", "qdisc", "replace", "dev", self.name, "clsact")
        await _run("tc", "qdisc", "del", "dev", self.name, "clsact")  # with its filters


@dataclass(frozen=True, slots=True)
class Network:
    """The hosts, and the address at which they reach the test process."""

    gateway: str
    hosts: Sequence[Host]


@lru_cache(maxsize=1)
def why_not() -> str | None:
    """Returns why this machine cannot have hosts, or None if it can."""
    if os.geteuid() != 0 or not hasattr(os, "pidfd_open"):
        return "hosts need Linux and root"
    if not (shutil.which("ip") and shutil.which("bridge")):
        return "hosts need the commands ip and bridge (iproute2)"
    name = f"cpt{os.getpid() % 100_000}"
    trial = (
        ("ip", "netns", "add", name),
        ("tc", "-n", name, "qdisc", "add", "dev", "lo", "clsact"),
        ("tc", "-n", name, "filter", "add", "dev", "lo", "ingress", "bpf", "da", "bytecode", _losing(1.0)),
    )
    try:
        for command in trial:
            tried = subprocess.run(command, capture_output=True, check=False, timeout=_COMMAND_LIMIT)
            if tried.returncode:
                return f"no network namespaces with filters here: {tried.stderr.decode().strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False, timeout=_COMMAND_LIMIT)
    return None


def _losing(share: float) -> str:
    """Returns a packet filter, as tc reads it, that drops a random share of what it sees."""
    if share >= 1:
        return f"1,6 0 0 {_DROP}"
    load, jump_if_greater, answer = 32, 37, 6
    steps = ((load, 0, 0, _RANDOM), (jump_if_greater, 0, 1, round(share * 0xFFFFFFFF)), (answer, 0, 0, _PASS))
    return ",".join(["4", *(" ".join(map(str, step)) for step in steps), f"{answer} 0 0 {_DROP}"])


@asynccontextmanager
async def open_hosts(count: int, names: Sequence[str] = ()) -> AsyncIterator[Network]:
    """Makes the switch and so many hosts, at most 200, and removes them when the block is left. They know each other by
    `names`, if there are any."""
    await remove_leftovers()
    tag = f"cp{os.getpid() % 100_000}"
    networks = list(NETWORKS.subnets(new_prefix=24))
    addresses = [str(address) for address in networks[os.getpid() % len(networks)].hosts()]
    gateway, switch = addresses[0], _switch_of(f"{tag}-0")
    async with AsyncExitStack() as cleanup:
        cleanup.push_async_callback(_remove, "ip", "link", "del", switch)
        await _remove("ip", "link", "del", switch)  # of a test process with the same pid that was killed
        await _run("ip", "link", "add", switch, "type", "bridge")
        await _run("ip", "address", "add", f"{gateway}/24", "dev", switch)
        await _run("ip", "link", "set", switch, "up")
        hosts = [
            Host(f"{tag}-{n}", address, gateway, names[n] if names else "")
            for n, address in enumerate(addresses[1 : count + 1])
        ]
        for host in hosts:
            cleanup.push_async_callback(_remove, "ip", "netns", "del", host.name)
            cleanup.callback(shutil.rmtree, _NAMES / host.name, ignore_errors=True)
            if names:
                _write_names(host, hosts)
            await _connect(host, switch)
        yield Network(gateway, hosts)


async def remove_leftovers() -> None:
    """Removes the switches and hosts of test processes that were killed."""
    alive = {int(entry.name) % 100_000 for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    hosts = [path.name for folder in (Path("/run/netns"), _NAMES) if folder.is_dir() for path in folder.iterdir()]
    switches = [path.name for path in Path("/sys/class/net").iterdir()]
    for name in {*hosts, *switches}:
        found = _OURS.fullmatch(name)
        if found and int(found[1]) not in alive:
            await _remove("ip", "netns", "del", name)
            await _remove("ip", "link", "del", name)
            shutil.rmtree(_NAMES / name, ignore_errors=True)


def _write_names(host: Host, hosts: Sequence[Host]) -> None:
    (_NAMES / host.name).mkdir(parents=True, exist_ok=True)
    lines = ["127.0.0.1 localhost", *(f"{one.address} {one.known_as}" for one in hosts)]
    (_NAMES / host.name / "hosts").write_text("\n".join(lines) + "\n")


async def _connect(host: Host, switch: str) -> None:
    inside = ("ip", "-n", host.name)
    await _remove("ip", "netns", "del", host.name)
    await _run("ip", "netns", "add", host.name)
    await _run("ip", "link", "add", host.name, "type", "veth", "peer", "name", _INTERFACE, "netns", host.name)
    await _run("ip", "link", "set", host.name, "master", switch, "up")
    await _run(*inside, "address", "add", f"{host.address}/24", "dev", _INTERFACE)
    await _run(*inside, "link", "set", "lo", "up")
    await _run(*inside, "link", "set", _INTERFACE, "up")


def _switch_of(name: str) -> str:
    return f"{name.partition('-')[0]}sw"


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        _, errors = await asyncio.wait_for(process.communicate(), _COMMAND_LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise OSError(f"{' '.join(command)}: {errors.decode().strip()}")


async def _remove(*command: str) -> None:
    """Removes what may not exist."""
    with contextlib.suppress(OSError):
        await _run(*command)


def main() -> None:
    """Enters the namespace and becomes the program. A process keeps the namespace of its main thread."""
    _, namespace, module, *arguments = sys.argv
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
