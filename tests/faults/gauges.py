"""Measures a process's memory, open files and open streams."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from tests.e2e.stack import Child

_OPEN_STREAMS = re.compile(r"^sse_open_streams (\d+)", re.MULTILINE)


def rss(child: Child) -> float:
    """Returns the resident memory in MB."""
    return int(Path(f"/proc/{child.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


def open_files(child: Child) -> int:
    return len(list(Path(f"/proc/{child.process.pid}/fd").iterdir()))


async def open_streams(http: httpx.AsyncClient) -> int:
    """Returns the number of open streams of the API that this client uses."""
    match = _OPEN_STREAMS.search((await http.get("/metrics")).text)
    assert match is not None
    return int(match[1])
