"""Starts a fake server for the time of a block."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.servers.starting import Words, first_line


@asynccontextmanager
async def fake_server(name: str) -> AsyncIterator[str]:
    """The URL of a fake server, `openai` or `anthropic`, in a process of its own."""
    with Words() as words:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"tests.fakes.{name}_server", "0"),
            stdout=asyncio.subprocess.PIPE, stderr=words, env=os.environ,
        )  # fmt: skip
        try:
            line = await first_line(process, f"the fake of {name}", words.tail)
            yield f"http://127.0.0.1:{int(line.split()[-1])}"
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
