"""Free ports for the servers that tests start.

A port that the kernel chooses (bind to 0, close, pass the number on) may be taken before the server binds it, by
another test run or by an outgoing connection. The ports of this module are below the kernel's range for outgoing
connections, and a file lock gives each block of them to one process.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

_FIRST, _BLOCKS, _SIZE = 20_000, 100, 100
"""Ports 20000 to 29999. Linux connects from 32768 upwards (net.ipv4.ip_local_port_range)."""


class Ports:
    """Returns each port at most once. Holds the locks of its blocks until `close` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: list[int] = []
        self._ports = self._blocks()

    def take(self) -> int:
        """Returns a port on which nobody listens. Raises RuntimeError when every block is in use."""
        for port in self._ports:
            if _is_free(port):
                return port
        raise RuntimeError(f"all ports from {_FIRST} to {_FIRST + _BLOCKS * _SIZE - 1} are taken")

    def close(self) -> None:
        while self._locks:
            os.close(self._locks.pop())

    def _blocks(self) -> Iterator[int]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for block in random.sample(range(_BLOCKS), _BLOCKS):
            lock = os.open(self._folder / str(block), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._locks.append(lock)
            yield from range(_FIRST + block * _SIZE, _FIRST + (block + 1) * _SIZE)


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


_of_this_process = Ports(Path(tempfile.gettempdir()) / f"copilot-test-ports-{os.getuid()}")


def free_port() -> int:
    """Returns a port that neither another test run nor an outgoing connection takes."""
    return _of_this_process.take()
