"""Starts the agent generator of examples/ as a process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT
from tests.servers.fork_server import start
from tests.servers.starting import until_ready

API_KEY = "the-generator-of-the-tests-0123456789"
WEBHOOK_SECRET = "whsec_dGhlLWdlbmVyYXRvci1vZi10aGUtdGVzdHMtMDEyMzQ1Njc4OQ=="
LADDER = ",".join(["0.02", "0.05", "0.1", "0.2", "0.5", "1", *["2"] * 60])
"""The generator's retry delays, in seconds. They last two minutes, because an API may restart slowly on a busy
machine."""


@dataclass(frozen=True, slots=True)
class GeneratorNode:
    """A running generator. It signs the outcomes that it reports; with `[generator: keyed]` it sends the API key
    instead."""

    port: int
    log: Path
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """Settings with which API and executor call this generator and accept its outcomes. The executor also needs
        PLATFORM_BASE_URL, the URL of the API."""
        return {
            "AGENTGENERATOR_HOST": self.host,
            "AGENTGENERATOR_PORT": str(self.port),
            "CHAT_INTERNAL_API_KEY": API_KEY,
            "CHAT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }


@asynccontextmanager
async def generator_node(
    folder: Path, *, redis: str | None = None, port: int = 0, **environment: str
) -> AsyncIterator[GeneratorNode]:
    """Starts a generator on `port` (0: a free one), with its log in `folder`. `environment` holds further variables,
    which its README lists."""
    log, output = folder / "generator.log", folder / "generator.out"
    env = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "GENERATOR_API_KEY": API_KEY, "GENERATOR_DELAY": "0",
        "GENERATOR_WEBHOOK_SECRET": WEBHOOK_SECRET, "GENERATOR_REDIS_URL": redis or "",
        "GENERATOR_LADDER": LADDER, **environment,
    }  # fmt: skip
    program = ("examples.agent_generator", "--port", str(port))
    process = await start(program, cwd=folder, environment=env, log=output, errors=log)

    async def ready() -> bool:
        return output.exists() and output.read_text().endswith("\n")

    try:
        await until_ready(process, "the generator", ready, log.read_text)
        yield GeneratorNode(int(output.read_text().split()[-1]), log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
