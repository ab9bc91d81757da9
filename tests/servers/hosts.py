"""Hosts of their own on this machine: network namespaces, each with a cable (veth) to one switch (bridge).

async with open_hosts(2) as network:
    await start(network.hosts[0].program("executor"), ...)  # what it reaches is at `network.gateway`
    await network.hosts[0].partition("both")  # no packet arrives, and nothing says so
    await network.hosts[0].heal()

The tests themselves, and the stores, are at the gateway. Needs Linux, root and iproute2. Run as a program, this module
enters a namespace: `python -m tests.servers.hosts NAMESPACE MODULE [ARGUMENT ...]` is `python -m MODULE` on that host.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tests.speed import limit

Direction = Literal["both", "out", "in"]
"""The packets that a partition loses: all, those of the host, or those to the host."""
DIRECTIONS: tuple[Direction, ...] = ("both", "out", "in")
NETWORKS = ipaddress.ip_network("198.18.0.0/15")
"""Addresses that RFC 2544 reserves for tests of networks. Each test process takes 256 of them, by its pid."""
_NOBODY = "02:00:00:00:00:01"
"""A hardware address that no cable has: the switch sends packets for it to nobody."""
_INTERFACE = "eth0"
_COMMAND_LIMIT = limit(20)
_CLONE_NEWNET = 0x40000000
"""The flag of setns(2) for a network namespace."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host. `name` is its namespace and its cable at the switch."""

    name: str
    address: str
    gateway: str

    def program(self, *program: str) -> Sequence[str]:
        """Returns what `python -m` runs to run `python -m PROGRAM` on this host."""
        return (__name__, self.name, *program)

    async def partition(self, direction: Direction) -> None:
        """Loses packets without a word: nobody gets an error, a RST or an unreachable address."""
        if direction == "both":
            await _run("bridge", "link", "set", "dev", self.name, "state", "0")  # disabled
        elif direction == "out":
            await _run("ip", "-n", self.name, "neigh", "replace", *_at(self.gateway, _NOBODY, _INTERFACE))
        else:
            await _run("ip", "neigh", "replace", *_at(self.address, _NOBODY, _switch_of(self.name)))

    async def heal(self) -> None:
        await _run("bridge", "link", "set", "dev", self.name, "state", "3")  # forwarding
        await _run("ip", "-n", self.name, "neigh", "flush", "to", self.gateway, "nud", "permanent")
        await _run("ip", "neigh", "flush", "to", self.address, "nud", "permanent")


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
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False, timeout=_COMMAND_LIMIT)
    if tried.returncode:
        return f"no network namespaces here: {tried.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True, timeout=_COMMAND_LIMIT)
    return None


@asynccontextmanager
async def open_hosts(count: int) -> AsyncIterator[Network]:
    """Makes the switch and so many hosts, at most 200, and removes them when the block is left."""
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
        hosts = [Host(f"{tag}-{n}", address, gateway) for n, address in enumerate(addresses[1 : count + 1])]
        for host in hosts:
            cleanup.push_async_callback(_remove, "ip", "netns", "del", host.name)
            await _connect(host, switch)
        yield Network(gateway, hosts)


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


def _at(address: str, hardware: str, interface: str) -> tuple[str, ...]:
    return (address, "lladdr", hardware, "dev", interface, "nud", "permanent")


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
