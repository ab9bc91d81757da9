"""Runs the operator's commands as real processes."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.config import Settings
from tests.e2e.stack import ROOT, Servers
from tests.servers.fork_server import start
from tests.speed import limit


@dataclass(frozen=True, slots=True)
class Said:
    """The end of a command: its exit code, and what it has printed."""

    code: int
    text: str
    errors: str

    @property
    def document(self) -> Any:
        return json.loads(self.text)


async def run(folder: Path, servers: Servers | None, *command: str, **settings: str) -> Said:
    """Runs `python -m backend COMMAND` in `folder` over the servers. Nothing answers its questions."""
    known = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in known}
    stores = {} if servers is None else servers.environment
    environment |= {"PYTHONPATH": str(ROOT)} | stores | settings
    said, errors = folder / "said", folder / "errors"
    process = await start(("backend", *command), cwd=folder, environment=environment, log=said, errors=errors)
    try:
        async with asyncio.timeout(limit(60)):
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Said(code, said.read_text(), errors.read_text())
