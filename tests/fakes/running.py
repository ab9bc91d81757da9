"""Starts a fake server for the time of a block."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def fake_server(name: str) -> AsyncIterator[str]:
    """The URL of a fake server, `openai` or `anthropic`, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"tests.fakes.{name}_server", "0", stdout=asyncio.subprocess.PIPE, env=os.environ
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
        yield f"http://127.0.0.1:{int(line.split()[-1])}"
    finally:
        process.kill()
        await process.wait()
