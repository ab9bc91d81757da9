"""The sandbox of bash_exec, which `make run` starts with BASH_EXEC, if no other one is configured."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.config import Settings
from backend.embedded.children import Child

_INHERITED = ("PATH", "LOG_LEVEL", "LOG_FORMAT", "PYTHONPATH")
"""The variables that it gets. Nothing secret is among them."""


@dataclass(frozen=True, slots=True)
class OwnSandbox:
    """The process, and the Unix socket at which it listens."""

    child: Child
    socket: Path


@contextmanager
def own_sandbox(settings: Settings) -> Iterator[OwnSandbox | None]:
    """Yields a process that is not started yet; None without BASH_EXEC, or if SANDBOX_SOCKET names another one."""
    if not settings.bash_exec or settings.sandbox_socket is not None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="copilot-", ignore_cleanup_errors=True) as folder:
        socket = Path(folder) / "sandbox.sock"  # a path in DATA_DIR may be too long for a Unix socket

        async def ready() -> bool:
            return socket.exists()

        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        command = (sys.executable, "-m", "executor.sandbox", str(socket))
        yield OwnSandbox(Child("sandbox", command, ready=ready, environment=environment), socket)
