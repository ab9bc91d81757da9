"""Tests of agents whose creation is interrupted by a crash or takes too long."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.agents import begin, create, library_of, next_work, open_agent_stack, outputs, result_in, works_of
from tests.e2e.chat_api import asked, ending_of, followed, history_of, open_session, read_with_cuts, text_in
from tests.e2e.sse import text_of
from tests.e2e.stack import Servers, Stack, new_user, ready
from tests.servers.generator import GeneratorNode, generator_node
from tests.servers.ports import free_port
from tests.speed import limit


@pytest.fixture
async def stack(servers: Servers, generator: GeneratorNode, tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_agent_stack(servers, generator, tmp_path) as stack:
        yield stack


async def test_an_operation_survives_the_death_of_its_api_and_executor(stack: Stack) -> None:
    """API and executor are killed after the operation has started, and started again. The outcome goes to the new
    ones."""
    async with stack.client(new_user()) as client:
        session, started = await begin(client, create("[generator: 202-webhook delay=3]"))
        (api,), (executor,) = stack.apis, stack.executors
        for child in (api, executor):
            child.send(signal.SIGKILL)
            await child.ended()
        again = await stack.spawn("api", port=api.port)
        await stack.start_executor()
        await ready(again)
        async with followed(client, started["task_id"]) as stream:
            (saved,) = await outputs(stream)
        assert saved["type"] == "agent_saved", saved
        assert ending_of(stream.events) == "completed"
        assert text_of(stream.events).startswith("The work of create_agent has ended")
        assert [agent["id"] for agent in await library_of(client)] == [saved["library_agent_id"]]
        assert await result_in(client, session) == saved
        assert text_of(await read_with_cuts(client, started["task_id"], [1, 2, 3])) == text_of(stream.events)


async def test_a_continuation_whose_executor_dies_is_finished_by_another(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session, started = await begin(client, create("[generator: 202-webhook delay=0.5]"))
        second = await stack.start_executor()
        async with followed(client, started["task_id"]) as stream:
            reading = asyncio.create_task(stream.rest())
            async with asyncio.timeout(limit(20)):
                while not any(e.chunk["type"] == "text-delta" for e in stream.events):
                    await asyncio.sleep(0.02)
            owner = next(e for e in stack.executors if f"turn runs  task_id={started['task_id']}" in e.log.read_text())
            owner.send(signal.SIGKILL)
            await reading
        assert ending_of(stream.events) == "completed"
        late = await read_with_cuts(client, started["task_id"], [])
        assert text_of(late).startswith("The work of create_agent has ended: The agent")
        kinds = [event.chunk["type"] for event in late]
        assert kinds[:5] == ["start", "start-step", "tool-input-available", "tool-output-available", "finish-step"]
        assert text_in((await history_of(client, session))[-1]) == text_of(late)
        assert second.running or len(stack.executors) == 1


async def test_the_conversation_shows_a_failed_operation_and_a_timeout(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session, started = await begin(
            client, create("[generator: 202-webhook fail error_type=validation_error delay=0.2]")
        )
        async with followed(client, started["task_id"]) as stream:
            await stream.rest()
        result = await result_in(client, session)
        assert (result["type"], result["error"], result["error_type"]) == ("error",) + ("validation_error",) * 2
        assert result["message"] in text_of(stream.events)
    short_timeout = await stack.start_executor(OPERATION_TIMEOUT="1")
    (first, _) = stack.executors
    first.send(signal.SIGTERM)
    await first.ended()
    async with stack.client(new_user()) as client:
        session, started = await begin(client, create("[generator: late 600]"))
        async with followed(client, started["task_id"]) as stream:
            await stream.rest()
        assert (await result_in(client, session))["error"] == "operation_timeout"
        assert "not finished in time" in text_of(stream.events)
        assert short_timeout.running


async def test_a_request_whose_executor_died_is_sent_again_and_the_work_is_done_once(
    stack: Stack, generator: GeneratorNode
) -> None:
    async with stack.client(new_user()) as client, next_work(generator) as work:
        session = await open_session(client)
        async with asked(client, session, create("[generator: 200 delay=4]")) as stream:
            reading = asyncio.create_task(stream.rest())
            await work()
            (first,) = stack.executors
            first.send(signal.SIGKILL)
            await stack.start_executor()
            await reading
        (saved,) = [e.chunk["output"] for e in stream.events if e.chunk["type"] == "tool-output-available"]
        assert saved["type"] == "agent_saved", saved
        assert ending_of(stream.events) == "completed"
        assert len(await library_of(client)) == 1
        made = await work()
        assert (made["asked"], made["done"]) == (2, 1), made


async def test_a_service_that_forgot_an_operation_is_asked_again(servers: Servers, tmp_path: Path) -> None:
    """The generator keeps its work in memory only. It is killed after it accepted an operation, and started again."""
    port = free_port()
    async with contextlib.AsyncExitStack() as first:
        generator = await first.enter_async_context(generator_node(tmp_path, port=port))
        async with (
            open_agent_stack(servers, generator, tmp_path, OPERATION_ASK_AGAIN="1") as stack,
            stack.client(new_user()) as client,
        ):
            session, started = await begin(client, create("[generator: 202-webhook delay=4]"))
            await first.aclose()
            async with generator_node(tmp_path, port=port) as again:
                async with followed(client, started["task_id"]) as stream:
                    (saved,) = await outputs(stream)
                (made,) = await works_of(again)
            assert saved["type"] == "agent_saved", saved
            assert await result_in(client, session) == saved
            assert len(await library_of(client)) == 1
            assert made["key"] == started["operation_id"]
            assert made["done"] == 1
            assert made["asked"] >= 2, "it takes the same bytes only under a key that it knows"
