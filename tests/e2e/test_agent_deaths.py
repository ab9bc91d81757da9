"""Agents that are being made while something dies, or takes too long."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.agents import begin, create, household, library_of, next_work, outputs, result_in
from tests.e2e.sse import text_of
from tests.e2e.stack import Servers, Stack, new_user, ready
from tests.e2e.talk import asked, ending_of, followed, history_of, open_session, read_with_cuts, text_in
from tests.servers.generator import GeneratorNode
from tests.speed import limit


@pytest.fixture
async def home(servers: Servers, generator: GeneratorNode, tmp_path: Path) -> AsyncIterator[Stack]:
    async with household(servers, generator, tmp_path) as stack:
        yield stack


async def test_the_story_survives_the_death_of_everything_between(home: Stack) -> None:
    """Asked for, begun; API and executor killed and started again; the outcome comes to the new ones."""
    async with home.client(new_user()) as client:
        session, told = await begin(client, create("[generator: 202-webhook delay=3]"))
        (api,), (executor,) = home.apis, home.executors
        for child in (api, executor):
            child.send(signal.SIGKILL)
            await child.ended()
        again = await home.spawn("api", port=api.port)
        await home.start_executor()
        await ready(again)
        async with followed(client, told["task_id"]) as stream:
            (saved,) = await outputs(stream)
        assert saved["type"] == "agent_saved", saved
        assert ending_of(stream.events) == "completed"
        assert text_of(stream.events).startswith("The work of create_agent has ended")
        assert [agent["id"] for agent in await library_of(client)] == [saved["library_agent_id"]]
        assert await result_in(client, session) == saved
        assert text_of(await read_with_cuts(client, told["task_id"], [1, 2, 3])) == text_of(stream.events)


async def test_a_continuation_whose_executor_dies_is_finished_by_another(home: Stack) -> None:
    async with home.client(new_user()) as client:
        session, told = await begin(client, create("[generator: 202-webhook delay=0.5]"))
        second = await home.start_executor()
        async with followed(client, told["task_id"]) as stream:
            reading = asyncio.create_task(stream.rest())
            async with asyncio.timeout(limit(20)):
                while not any(e.chunk["type"] == "text-delta" for e in stream.events):
                    await asyncio.sleep(0.02)
            owner = next(e for e in home.executors if f"turn runs  task_id={told['task_id']}" in e.log.read_text())
            owner.send(signal.SIGKILL)
            await reading
        assert ending_of(stream.events) == "completed"
        late = await read_with_cuts(client, told["task_id"], [])
        assert text_of(late).startswith("The work of create_agent has ended: The agent")
        kinds = [event.chunk["type"] for event in late]
        assert kinds[:5] == ["start", "start-step", "tool-input-available", "tool-output-available", "finish-step"]
        assert text_in((await history_of(client, session))[-1]) == text_of(late)
        assert second.running or len(home.executors) == 1


async def test_a_failure_and_a_deadline_are_told(home: Stack) -> None:
    async with home.client(new_user()) as client:
        session, told = await begin(
            client, create("[generator: 202-webhook fail error_type=validation_error delay=0.2]")
        )
        async with followed(client, told["task_id"]) as stream:
            await stream.rest()
        result = await result_in(client, session)
        assert (result["type"], result["error"], result["error_type"]) == ("error",) + ("validation_error",) * 2
        assert result["message"] in text_of(stream.events)
    hasty = await home.start_executor(OPERATION_TIMEOUT="1")
    (first, _) = home.executors
    first.send(signal.SIGTERM)
    await first.ended()
    async with home.client(new_user()) as client:
        session, told = await begin(client, create("[generator: late 600]"))
        async with followed(client, told["task_id"]) as stream:
            await stream.rest()
        assert (await result_in(client, session))["error"] == "operation_timeout"
        assert "not finished in time" in text_of(stream.events)
        assert hasty.running


async def test_work_that_was_asked_for_when_its_executor_died_is_asked_for_again_and_done_once(
    home: Stack, generator: GeneratorNode
) -> None:
    async with home.client(new_user()) as client, next_work(generator) as work:
        session = await open_session(client)
        async with asked(client, session, create("[generator: 200 delay=4]")) as stream:
            reading = asyncio.create_task(stream.rest())
            await work()
            (first,) = home.executors
            first.send(signal.SIGKILL)
            await home.start_executor()
            await reading
        (saved,) = [e.chunk["output"] for e in stream.events if e.chunk["type"] == "tool-output-available"]
        assert saved["type"] == "agent_saved", saved
        assert ending_of(stream.events) == "completed"
        assert len(await library_of(client)) == 1
        made = await work()
        assert (made["asked"], made["done"]) == (2, 1), made
