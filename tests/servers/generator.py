"""The agent generator of examples/, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.starting import first_line

ROOT = Path(__file__).resolve().parents[2]
API_KEY = "the-generator-of-the-tests-0123456789"
WEBHOOK_SECRET = "whsec_dGhlLWdlbmVyYXRvci1vZi10aGUtdGVzdHMtMDEyMzQ1Njc4OQ=="
LADDER = ",".join(["0.02", "0.05", "0.1", "0.2", "0.5", "1", *["2"] * 60])
"""Goes on for two minutes: an API that is started again on a busy machine takes its time."""


@dataclass(frozen=True, slots=True)
class GeneratorNode:
    """A generator that runs. It signs what it tells (`[generator: keyed]`: it sends the key)."""

    port: int
    log: Path
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """What the environment of API and executor needs, to ask this generator and to take its outcomes. The executor
        needs PLATFORM_BASE_URL too: where the API is."""
        return {
            "AGENTGENERATOR_HOST": self.host,
            "AGENTGENERATOR_PORT": str(self.port),
            "CHAT_INTERNAL_API_KEY": API_KEY,
            "CHAT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }


@asynccontextmanager
async def generator_node(folder: Path, *, redis: str | None = None, **environment: str) -> AsyncIterator[GeneratorNode]:
    """Starts one on a free port, with its log in `folder`; further names of its environment: see its README."""
    log = folder / "generator.log"
    env = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "GENERATOR_API_KEY": API_KEY, "GENERATOR_DELAY": "0",
        "GENERATOR_WEBHOOK_SECRET": WEBHOOK_SECRET, "GENERATOR_REDIS_URL": redis or "",
        "GENERATOR_LADDER": LADDER, **environment,
    }  # fmt: skip
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "examples.agent_generator", "--port", "0", cwd=folder, env=env,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=output,
        )  # fmt: skip
    try:
        line = await first_line(process, "the generator", log.read_text)
        yield GeneratorNode(int(line.split()[-1]), log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
