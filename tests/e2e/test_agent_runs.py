"""Runs of agents, with API, executors and the agent platform of examples/ as processes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.chat.protocol.agent_json import parse_agent
from backend.chat.store.library import save_agent
from backend.ids import UserId
from backend.postgres import Database
from examples.agent_platform.blocks.block import block_id
from tests.e2e.agents import open_agent_stack, outputs
from tests.e2e.chat_api import asked, ending_of, followed, open_session
from tests.e2e.sse import text_of
from tests.e2e.stack import Servers, Stack, new_user
from tests.plain_http import http_client
from tests.servers.generator import GeneratorNode, generator_node
from tests.servers.ports import free_port
from tests.speed import lasting, limit

KEY = "the-platform-of-the-tests-0123456789"
LIMIT = limit(60)


LONGEST_DELAY = 60.0
"""Seconds that the block Delay may wait."""
pytestmark = pytest.mark.parametrize("servers", ["redis"], indirect=True, scope="module")


def adder(seconds: float = 0) -> dict[str, Any]:
    """An agent that adds two numbers, after a delay."""
    nodes = [
        ("a", "Agent Input", {"name": "a", "type": "number"}),
        ("b", "Agent Input", {"name": "b", "type": "number"}),
        ("sum", "Arithmetic", {"operation": "add"}),
        ("wait", "Delay", {"seconds": min(seconds, LONGEST_DELAY)}),
        ("out", "Agent Output", {"name": "sum"}),
    ]
    links = [("a", "result", "sum", "a"), ("b", "result", "sum", "b"), ("sum", "result", "wait", "value")]
    links.append(("wait", "value", "out", "value"))
    return {
        "name": "Adder",
        "description": "Adds two numbers",
        "nodes": [
            {"id": id, "block_id": block_id(block), "input_default": given, "metadata": {"name": id}}
            for id, block, given in nodes
        ],
        "links": [
            {"source_id": source, "source_name": output, "sink_id": sink, "sink_name": name, "is_static": False}
            for source, output, sink, name in links
        ],
    }


def platform_of(node: GeneratorNode) -> dict[str, str]:
    return {"PLATFORM_URL": f"{node.url}/api/v1", "PLATFORM_API_KEY": KEY}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[GeneratorNode]:
    async with generator_node(tmp_path, PLATFORM_DATA=str(tmp_path / "platform"), PLATFORM_API_KEY=KEY) as node:
        yield node


class Runner:
    """A user with an agent in the library."""

    def __init__(self, stack: Stack, client: httpx.AsyncClient, user: str, agent: str, graph: str) -> None:
        self.stack, self.client, self.user, self.agent, self.graph = stack, client, user, agent, graph

    def call(self, **more: Any) -> str:
        return f"/tool run_agent {json.dumps({'agent_id': self.agent, 'inputs': {'a': 2, 'b': 3}, **more})}"

    async def begin(self, session: str | None = None, **more: Any) -> dict[str, Any]:
        """Starts a run. Returns the output of the call."""
        async with asked(self.client, session or await open_session(self.client), self.call(**more)) as stream:
            (started,) = await outputs(stream)
        assert started["type"] == "operation_started", started
        return started

    async def continued(self, started: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Waits for the continuation. Returns the output of the call, and the text."""
        async with followed(self.client, started["task_id"]) as stream:
            (output,) = await asyncio.wait_for(outputs(stream), LIMIT)
        assert ending_of(stream.events) == "completed"
        return output, text_of(stream.events)

    async def runs_at(self, node: GeneratorNode) -> list[dict[str, Any]]:
        """Returns the runs of the agent that the platform knows."""
        headers = {"x-api-key": KEY, "x-user-id": self.user}
        async with http_client(base_url=f"{node.url}/api/v1", headers=headers) as client:
            found: list[dict[str, Any]] = (await client.get(f"/graphs/{self.graph}/executions")).json()["executions"]
        return found

    async def until_running(self, node: GeneratorNode) -> None:
        async with asyncio.timeout(LIMIT):
            while not any(run["status"] == "running" for run in await self.runs_at(node)):
                await asyncio.sleep(0.05)  # between two looks of a bounded wait

    async def kill_executor(self, **settings: str) -> None:
        """Kills the executor and starts another one."""
        (executor,) = self.stack.executors
        executor.send(signal.SIGKILL)
        await executor.ended()
        await self.stack.start_executor(**settings)


async def runner_of(stack: Stack, open_things: AsyncExitStack, document: dict[str, Any]) -> Runner:
    user = new_user()
    client = await open_things.enter_async_context(stack.client(user))
    async with Database.open(stack.servers.postgres, size=1) as database, database.connection() as c:
        saved = await save_agent(c, UserId(user), parse_agent(document), task_id=None)
    return Runner(stack, client, user, saved.agent.id, saved.agent.graph_id)


async def test_an_agent_runs_and_its_output_reaches_the_conversation(
    servers: Servers, node: GeneratorNode, tmp_path: Path
) -> None:
    async with open_agent_stack(servers, node, tmp_path, **platform_of(node)) as stack, AsyncExitStack() as things:
        runner = await runner_of(stack, things, adder())
        session = await open_session(runner.client)
        output, words = await runner.continued(await runner.begin(session))
        assert (output["type"], output["outputs"], output["agent_id"]) == ("agent_output", {"sum": [5]}, runner.agent)
        assert "sum: 5" in words
        async with asked(runner.client, session, "Run it with 20 and 3") as stream:
            again = (await outputs(stream))[-1]
        assert (await runner.continued(again))[0]["outputs"] == {"sum": [23]}
        async with asked(runner.client, session, runner.call(wait_for_result=60)) as stream:
            (waited,) = await asyncio.wait_for(outputs(stream), LIMIT)
        assert (waited["type"], waited["outputs"]) == ("agent_output", {"sum": [5]})
        seen = f'/tool view_agent_output {{"execution_id": "{waited["execution_id"]}"}}'
        async with asked(runner.client, session, seen) as stream:
            (viewed,) = await outputs(stream)
        assert (viewed["outputs"], viewed["status"]) == ({"sum": [5]}, "completed")
        assert {one["name"]: one["status"] for one in viewed["nodes"]}["sum"] == "completed"
        blocks = '/tool find_block {"query": "arithmetic"}\n/then\n/tool run_block '
        arithmetic = {"block_id": block_id("Arithmetic"), "inputs": {"operation": "add", "a": 1, "b": 2}}
        async with asked(runner.client, session, blocks + json.dumps(arithmetic)) as stream:
            found, added = await outputs(stream)
        assert found["blocks"][0]["id"] == block_id("Arithmetic")
        assert (added["type"], added["outputs"]["result"]) == ("block_output", [3])
        schedule = {"cron": "0 8 * * *", "timezone": "Europe/Berlin"}
        async with asked(runner.client, session, runner.call(schedule=schedule)) as stream:
            (made,) = await outputs(stream)
        (one,) = made["schedules"]
        assert (one["cron"], one["next_run_at"] is not None) == ("0 8 * * *", True)
        assert len(await runner.runs_at(node)) == 3
        stranger = await runner_of(stack, things, adder())
        async with asked(stranger.client, await open_session(stranger.client), runner.call()) as stream:
            assert (await outputs(stream))[0]["error"] == "agent_not_found"


async def test_an_agent_is_created_and_then_run(servers: Servers, node: GeneratorNode, tmp_path: Path) -> None:
    async with (
        open_agent_stack(servers, node, tmp_path, **platform_of(node)) as stack,
        stack.client(new_user()) as client,
    ):
        session = await open_session(client)
        async with asked(client, session, "Create an agent that adds two numbers") as stream:
            (made,) = await outputs(stream)
        async with followed(client, made["task_id"]) as stream:
            (saved,) = await asyncio.wait_for(outputs(stream), LIMIT)
        assert saved["type"] == "agent_saved", saved
        async with asked(client, session, "Run it with 2 and 3") as stream:
            (started,) = await outputs(stream)
        assert started["type"] == "operation_started", started
        async with followed(client, started["task_id"]) as stream:
            (output,) = await asyncio.wait_for(outputs(stream), LIMIT)
        assert list(output["outputs"].values()) == [[5]], output
        assert "5" in text_of(stream.events)
        async with asked(client, session, "Run it every morning at 8") as stream:
            (made,) = await outputs(stream)
        ((schedule,), inputs) = made["schedules"], made["schedules"][0]["inputs"]
        assert (schedule["cron"], sorted(inputs.values())) == ("0 8 * * *", [2, 3])
        async with asked(client, session, "/tool agent_schedules {}") as stream:
            (listed,) = await outputs(stream)
        assert listed["schedules"] == made["schedules"]


async def test_a_run_survives_two_kills_of_its_executor_though_its_webhook_is_lost(
    servers: Servers, node: GeneratorNode, tmp_path: Path
) -> None:
    """Nothing listens at the address of the webhook, so only executors can learn the outcome."""
    lost = {"PLATFORM_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    async with (
        open_agent_stack(servers, node, tmp_path, **platform_of(node), **lost) as stack,
        AsyncExitStack() as things,
    ):
        runner = await runner_of(stack, things, adder(lasting(6)))
        started = await runner.begin()
        await runner.until_running(node)
        for _ in range(2):
            await runner.kill_executor()
        output, _ = await runner.continued(started)
        assert (output["type"], output["outputs"]) == ("agent_output", {"sum": [5]})
        assert [run["status"] for run in await runner.runs_at(node)] == ["completed"]


async def test_a_call_that_waits_for_its_run_survives_two_kills(
    servers: Servers, node: GeneratorNode, tmp_path: Path
) -> None:
    async with open_agent_stack(servers, node, tmp_path, **platform_of(node)) as stack, AsyncExitStack() as things:
        runner = await runner_of(stack, things, adder(lasting(6)))
        async with asked(runner.client, await open_session(runner.client), runner.call(wait_for_result=120)) as stream:
            reading = asyncio.create_task(stream.rest())
            await runner.until_running(node)
            await runner.kill_executor()
            await runner.kill_executor()
            await asyncio.wait_for(reading, LIMIT)
        (output,) = [e.chunk["output"] for e in stream.events if e.chunk["type"] == "tool-output-available"]
        assert (output["type"], output["outputs"]) == ("agent_output", {"sum": [5]}), output
        assert [run["status"] for run in await runner.runs_at(node)] == ["completed"]


async def test_a_run_goes_on_when_the_platform_was_killed_and_can_be_cancelled(
    servers: Servers, tmp_path: Path
) -> None:
    port, data = free_port(), {"PLATFORM_DATA": str(tmp_path / "platform"), "PLATFORM_API_KEY": KEY}
    async with AsyncExitStack() as first, AsyncExitStack() as things:
        node = await first.enter_async_context(generator_node(tmp_path, port=port, **data))
        stack = await things.enter_async_context(open_agent_stack(servers, node, tmp_path, **platform_of(node)))
        runner = await runner_of(stack, things, adder(lasting(3)))
        slow = await runner_of(stack, things, adder(60))
        started, cancelled = await runner.begin(), await slow.begin()
        await runner.until_running(node)
        await first.aclose()
        async with asked(runner.client, await open_session(runner.client), runner.call()) as stream:
            (away,) = await outputs(stream)
        assert (away["type"], away["error"]) == ("error", "tool_unavailable")
        node = await things.enter_async_context(generator_node(tmp_path, port=port, **data))
        output, _ = await runner.continued(started)
        assert (output["type"], output["outputs"]) == ("agent_output", {"sum": [5]})
        assert [run["status"] for run in await runner.runs_at(node)] == ["completed"]
        await slow.client.post(f"/api/chat/tasks/{cancelled['task_id']}/cancel")
        async with asyncio.timeout(LIMIT):
            while [run["status"] for run in await slow.runs_at(node)] != ["cancelled"]:
                await asyncio.sleep(0.05)  # between two looks of a bounded wait
