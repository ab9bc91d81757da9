"""Tests of the ports of test servers, each of which is taken once across all processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.servers.ports import Ports

_TAKE = "import sys; from pathlib import Path; from tests.servers.ports import Ports; ports = Ports(Path(sys.argv[1]))"
_MANY = f"{_TAKE}; print(*[ports.take() for _ in range(150)]); sys.stdout.flush(); sys.stdin.read()"


def test_concurrent_processes_get_different_ports(tmp_path: Path) -> None:
    command = (sys.executable, "-c", _MANY, str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    others = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    try:
        taken = [int(port) for other in others for port in other.stdout.readline().split()]
    finally:
        for other in others:
            other.communicate()
    assert len(set(taken)) == len(taken) == 450


def test_a_port_in_use_is_skipped(tmp_path: Path) -> None:
    ports, again = Ports(tmp_path), Ports(tmp_path)
    first = ports.take()
    ports.close()
    taken: list[int] = []
    with socket.create_server(("127.0.0.1", first)), pytest.raises(RuntimeError, match="all ports"):
        taken.extend(iter(again.take, None))
    again.close()
    assert len(taken) > 9_000
    assert first not in taken


def test_ports_lie_below_the_range_of_outgoing_connections(tmp_path: Path) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = Ports(tmp_path)
    assert ports.take() < lowest
    ports.close()
