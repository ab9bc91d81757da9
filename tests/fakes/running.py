"""Starts a fake server for the time of a block."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.plain_http import http_client
from tests.servers.starting import OutputFile, first_line
from tests.speed import limit


@asynccontextmanager
async def fake_server(name: str) -> AsyncIterator[str]:
    """Starts a fake server, `openai` or `anthropic`, as a process, and yields its URL."""
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"tests.fakes.{name}_server", "0"),
            stdout=asyncio.subprocess.PIPE, stderr=output_file, env=os.environ,
        )  # fmt: skip
        try:
            line = await first_line(process, f"the fake of {name}", output_file.tail)
            yield f"http://127.0.0.1:{int(line.split()[-1])}"
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def words_in(file: Path) -> list[str]:
    """Returns the words in a file that a server writes. A missing file has none, and so has one that was just
    opened."""
    try:
        return file.read_text().split()
    except FileNotFoundError:
        return []


async def requests_of(url: str, mark: str) -> list[dict[str, Any]]:
    """Returns the requests whose body has `mark` in it, as the fake server at `url` recorded them."""
    async with http_client(timeout=limit(20)) as client:
        requests = (await client.get(f"{url}/requests")).json()
    return [request for request in requests if mark in json.dumps(request["body"])]


async def bodies_of(url: str, mark: str) -> list[dict[str, Any]]:
    """Returns the bodies of the requests that `requests_of` returns."""
    return [request["body"] for request in await requests_of(url, mark)]
