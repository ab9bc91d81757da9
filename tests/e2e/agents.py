"""What the tests of agents share: a household with a generator, and words to ask it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.sse import SseStream
from tests.e2e.stack import ROOT, Servers, Stack, open_stack
from tests.e2e.talk import asked, ending_of, history_of, open_session
from tests.servers.generator import GeneratorNode
from tests.servers.ports import free_port
from tests.speed import limit

GOAL = "Every morning at 8 read my mail, pick the bills and send me a summary"
Told = tuple[str, dict[str, Any]]


@asynccontextmanager
async def household(servers: Servers, generator: GeneratorNode, folder: Path) -> AsyncIterator[Stack]:
    port = free_port()
    settings = {
        **generator.settings,
        "PLATFORM_BASE_URL": f"http://127.0.0.1:{port}",
        "OPERATION_TIMEOUT": "60",
        "AGENT_TEMPLATES_DIR": str(ROOT / "examples" / "agent_templates"),
    }
    async with open_stack(servers, folder, executors=1, apis=0, **settings) as stack:
        await stack.start_api(port=port)
        yield stack


def create(how: str = "", **more: Any) -> str:
    said = {"description": f"{GOAL} {how}".strip(), **more}
    return f"/tool create_agent {json.dumps(said)}"


async def outputs(stream: SseStream) -> list[dict[str, Any]]:
    await stream.rest()
    return [e.chunk["output"] for e in stream.events if e.chunk["type"] == "tool-output-available"]


async def begin(client: httpx.AsyncClient, text: str) -> Told:
    """A session in which an operation was begun, and what the call was told."""
    session = await open_session(client)
    async with asked(client, session, text) as stream:
        (told,) = await outputs(stream)
    assert told["type"] == "operation_started", told
    assert ending_of(stream.events) == "completed"
    return session, told


@asynccontextmanager
async def next_work(generator: GeneratorNode) -> AsyncIterator[Callable[[], Awaitable[dict[str, Any]]]]:
    """A question that is answered when the generator has got more work than before the block: with the newest one."""
    async with httpx.AsyncClient(base_url=generator.url, trust_env=False) as client:

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
    """What stands in the place of the call now."""
    messages = await history_of(client, session)
    part = next(p for m in messages for p in m["parts"] if p["type"] == "dynamic-tool")
    output: dict[str, Any] = part["output"]
    return output


async def library_of(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    response = await client.get("/api/library/agents")
    assert response.status_code == 200, response.text
    agents: list[dict[str, Any]] = response.json()["agents"]
    return agents
