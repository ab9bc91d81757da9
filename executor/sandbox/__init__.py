"""The sandbox: commands of models run in it, apart from everything else.

`python -m executor.sandbox SOCKET` is a process of its own, without secrets, that runs them by bubblewrap. The tool
`bash_exec` of an executor asks it over a Unix socket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from backend.config import Settings

if TYPE_CHECKING:  # see below
    from executor.sandbox.client import Sandbox

BASH_EXEC = "bash_exec"
"""The name of the tool."""


@asynccontextmanager
async def open_sandbox(settings: Settings) -> AsyncIterator[Sandbox | None]:
    """Yields the client of the sandbox at SANDBOX_SOCKET; None without that setting."""
    if settings.sandbox_socket is None:
        yield None
        return
    from executor.sandbox.client import open_client  # an executor without a sandbox starts faster without it

    async with open_client(settings.sandbox_socket) as sandbox:
        yield sandbox
