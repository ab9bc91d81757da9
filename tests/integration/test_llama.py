"""A real model: llama.cpp's own server with SmolLM2 135M, in both formats. What it says is nonsense, often."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from backend.chat.models import NewMessage, Role, TextPart, ToolCallPart, ToolResultPart
from backend.config import Settings
from executor.llm.events import Finished, ModelEvent, TextDelta
from executor.llm.history import to_prompt_messages
from executor.llm.model import Model, Prompt, ToolSpec
from executor.llm.providers import open_model
from tests import servers
from tests.plain_http import http_client
from tests.servers.llama_install import HINT, find_or_install
from tests.servers.starting import OutputFile, first_line
from tests.speed import limit

CONTEXT = 512
TOOLS = (ToolSpec("look", "Looks", {"type": "object", "properties": {"at": {"type": "string"}}}),)
FORMATS = ("openai", "anthropic")


@asynccontextmanager
async def llama() -> AsyncIterator[str]:
    """Yields the URL of the server."""
    python = await asyncio.to_thread(find_or_install)
    if python is None:
        pytest.skip(HINT)
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            *(python, Path(servers.__path__[0], "llama_server.py"), str(CONTEXT)),
            stdout=asyncio.subprocess.PIPE, stderr=output_file, env=os.environ,
        )  # fmt: skip
        try:
            line = await first_line(process, "llama.cpp", output_file.tail)
            yield f"http://127.0.0.1:{int(line.split()[-1])}"
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with llama() as url:
        yield url


@pytest.fixture(scope="module")
async def models(url: str) -> AsyncIterator[dict[str, Model]]:
    """The models as the executor opens them, without a key."""
    async with AsyncExitStack() as stack:
        given = {"openai": Settings(chat_base_url=f"{url}/v1", chat_model="local")}
        given["anthropic"] = Settings(chat_provider="anthropic", chat_base_url=url, chat_model="local")
        yield {name: await stack.enter_async_context(open_model(settings)) for name, settings in given.items()}


def user(text: str) -> NewMessage:
    return NewMessage(Role.USER, (TextPart(text),))


async def hear(model: Model, rows: list[NewMessage], most: int = 6) -> tuple[str, Finished]:
    events: list[ModelEvent] = []
    prompt = Prompt("Be kind.", to_prompt_messages(rows), TOOLS, most)
    async with asyncio.timeout(limit(60)), aclosing(model.stream(prompt)) as stream:
        events = [event async for event in stream]
    finished = events[-1]
    assert isinstance(finished, Finished)
    return "".join(event.text for event in events if isinstance(event, TextDelta)), finished


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_real_model_answers_with_its_usage(models: dict[str, Model], format_: str) -> None:
    text, finished = await hear(models[format_], [user("Say hello.")])
    assert text
    assert finished.reason in ("stop", "length")
    if format_ == "openai":  # in Anthropic's, an answer that begins with half a character has no message_start
        assert finished.usage.input_tokens > 5
    assert 0 < finished.usage.output_tokens <= 6


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_turn_after_one_with_tools_is_accepted(models: dict[str, Model], format_: str) -> None:
    call = NewMessage(Role.ASSISTANT, (ToolCallPart("1", "look", {"at": "x"}), ToolCallPart("2", "look", {})))
    results = [NewMessage(Role.TOOL, (ToolResultPart(call_id, "look", "a lake"),)) for call_id in "12"]
    _, finished = await hear(models[format_], [user("Look."), call, *results, user("What did you see?")])
    assert finished.usage.output_tokens


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_conversation_that_outgrows_a_real_context_goes_on(models: dict[str, Model], format_: str) -> None:
    rows: list[NewMessage] = []
    for number in range(6):
        answer = NewMessage(Role.ASSISTANT, (TextPart("so " * 30),))
        rows += [user(f"Question {number}? " + "why is it so " * 30), answer]
    for asked in ([*rows, user("Say hello.")], [user("Say hello. " + "word " * 1_500)]):
        _, finished = await hear(models[format_], asked)
        assert finished.usage.input_tokens < CONTEXT


@pytest.mark.parametrize("format_", FORMATS)
async def test_leaving_ends_the_answer_at_the_server(models: dict[str, Model], url: str, format_: str) -> None:
    """An idle slot of llama.cpp still says whether its last answer had a next token, or was generated to its end."""
    rows = [user("Tell a very long story about a lake.")]
    async with aclosing(models[format_].stream(Prompt("", rows, (), 400))) as events:
        async for _ in events:
            break
    async with http_client() as client, asyncio.timeout(limit(10)):
        while (slot := (await client.get(f"{url}/slots")).json()[0])["is_processing"]:
            await asyncio.sleep(0.02)  # between two looks of a bounded wait
        assert slot["next_token"][0]["has_next_token"]
    assert (await hear(models[format_], [user("Say hello.")]))[0]


async def test_a_second_question_waits_for_the_one_slot(models: dict[str, Model]) -> None:
    answers = await asyncio.gather(*(hear(models[name], [user("Count to ten.")], 10) for name in FORMATS))
    assert all(text for text, _ in answers)
