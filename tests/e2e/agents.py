"""A stack with a generator, and messages that create agents, for the tests of agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests import ROOT
from tests.e2e.chat_api import asked, ending_of, history_of, open_session
from tests.e2e.sse import SseStream
from tests.e2e.stack import Servers, Stack, open_stack
from tests.plain_http import http_client
from tests.servers.generator import GeneratorNode
from tests.servers.ports import free_port
from tests.speed import limit

GOAL = "Every morning at 8 read my mail, pick the bills and send me a summary"


@asynccontextmanager
async def open_agent_stack(
    servers: Servers, generator: GeneratorNode, folder: Path, **more: str
) -> AsyncIterator[Stack]:
    """Starts one API and one executor that use the generator. `more` are further settings."""
    port = free_port()
    settings = {
        **generator.settings,
        "PLATFORM_BASE_URL": f"http://127.0.0.1:{port}",
        "OPERATION_TIMEOUT": "60",
        "AGENT_TEMPLATES_DIR": str(ROOT / "examples" / "agent_templates"),
        **more,
    }
    async with open_stack(servers, folder, executors=1, apis=0, **settings) as stack:
        await stack.start_api(port=port)
        yield stack


def create(options: str = "", **more: Any) -> str:
    """Returns a message that creates an agent. `options` go to the generator, `more` are arguments of the tool."""
    arguments = {"description": f"{GOAL} {options}".strip(), **more}
    return f"/tool create_agent {json.dumps(arguments)}"


async def outputs(stream: SseStream) -> list[dict[str, Any]]:
    """Reads the rest of a stream and returns the outputs of its tool calls."""
    await stream.rest()
    return [e.chunk["output"] for e in stream.events if e.chunk["type"] == "tool-output-available"]


async def begin(client: httpx.AsyncClient, text: str) -> tuple[str, dict[str, Any]]:
    """Starts an operation in a new session. Returns the session's id and the output of the call."""
    session = await open_session(client)
    async with asked(client, session, text) as stream:
        (started,) = await outputs(stream)
    assert started["type"] == "operation_started", started
    assert ending_of(stream.events) == "completed"
    return session, started


async def works_of(generator: GeneratorNode) -> list[dict[str, Any]]:
    """Returns all work that the generator has received since its start."""
    async with http_client(base_url=generator.url, timeout=limit(20)) as client:
        found: list[dict[str, Any]] = (await client.get("/works")).json()
    return found


@asynccontextmanager
async def next_work(generator: GeneratorNode) -> AsyncIterator[Callable[[], Awaitable[dict[str, Any]]]]:
    """Yields a function that waits until the generator has received work since the block began. It returns the newest
    work."""
    async with http_client(base_url=generator.url) as client:

        async def works() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await client.get("/works")).json()
            return found

        before = len(await works())

        async def newest() -> dict[str, Any]:
            async with asyncio.timeout(limit(20)):
                while len(found := await works()) == before:
                    await asyncio.sleep(0.02)
            return found[-1]

        yield newest


async def result_in(client: httpx.AsyncClient, session: str) -> dict[str, Any]:
    """Returns the current output of the session's call."""
    messages = await history_of(client, session)
    part = next(p for m in messages for p in m["parts"] if p["type"] == "dynamic-tool")
    output: dict[str, Any] = part["output"]
    return output


async def library_of(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    response = await client.get("/api/library/agents")
    assert response.status_code == 200, response.text
    agents: list[dict[str, Any]] = response.json()["agents"]
    return agents
