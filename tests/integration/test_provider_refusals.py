"""Requests to servers that refuse something in them (`tests/fakes/picky_server.py`)."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from backend.chat.models import NewMessage, Role, TextPart, ToolCallPart, ToolResultPart
from backend.config import Settings
from backend.errors import ProviderError
from executor.llm.events import TextDelta
from executor.llm.history import to_prompt_messages
from executor.llm.model import Model, Prompt, ToolSpec
from executor.llm.retrying import ModelCallLimits
from tests.fakes.running import bodies_of, fake_server
from tests.speed import limit

QUICK = ModelCallLimits(connect=limit(5), silence=limit(5), no_event=limit(5), backoff=0.01, attempts=1)
MARKED = ("unmarked", "text-alone")
"""Servers in OpenAI's format that serve a model whose requests get marks for caching."""
TOOLS = tuple(ToolSpec(name, "Looks", {"type": "object", "properties": {}}) for name in ("look", "mcp_bad", "peek"))


@pytest.fixture(scope="session")
async def url() -> AsyncIterator[str]:
    async with fake_server("picky") as url:
        yield url


@asynccontextmanager
async def opened(url: str, server: str) -> AsyncIterator[Model]:
    from executor.llm.anthropic import open_anthropic  # imported by the worker that runs these tests
    from executor.llm.openai import open_openai

    connect = open_anthropic if server.startswith("claude") else open_openai
    path = f"{url}/{server}" if server.startswith("claude") else f"{url}/{server}/v1"
    name = "claude" if server in MARKED else "m"
    async with connect(Settings(chat_api_key="k", chat_base_url=path), name, QUICK) as model:
        yield model


def user(text: str) -> NewMessage:
    return NewMessage(Role.USER, (TextPart(text),))


async def said(model: Model, messages: Sequence[NewMessage], tools: Sequence[ToolSpec] = TOOLS, most: int = 100) -> str:
    text = ""
    prompt = Prompt("Be kind.", to_prompt_messages(messages), tools, most)
    async with asyncio.timeout(limit(30)), aclosing(model.stream(prompt)) as events:
        async for event in events:
            text += event.text if isinstance(event, TextDelta) else ""
    return text


def tools_in(body: dict[str, Any]) -> list[str]:
    return [tool.get("function", tool)["name"] for tool in body.get("tools", ())]


@pytest.mark.parametrize(
    ("server", "refusals", "words"),
    [
        ("no-tools-ollama", 1, "accepts no tools"),
        ("no-tools-vllm", 1, "accepts no tools"),
        ("no-tools-openrouter", 1, "accepts no tools"),
        ("no-system", 1, "refuses a system message"),
        ("html", 1, "refuses stream_options"),
        ("plain", 1, "refuses stream_options"),
        ("no-length", 2, "refuses max_tokens"),
        ("new-length", 1, "refuses max_tokens"),
        ("named-schema", 1, "refuses the definition of the tool mcp_bad"),
        ("numbered-schema", 1, "refuses the definition of the tool mcp_bad"),
        ("unnamed-schema", 1, "refuses the definition of the tool mcp_bad"),
        ("few-tools", 1, "accepts 2 tools"),
        ("cap", 1, "at most 40 tokens"),
        ("unmarked", 1, "refuses what helps its cache"),
        ("text-alone", 1, "refuses what helps its cache"),
        ("claude-display", 1, "refuses thinking.display"),
        ("claude-thinking", 1, "refuses the thinking setting"),
        ("claude-system", 1, "refuses a system prompt"),
        ("claude-cache", 1, "refuses cache_control"),
        ("claude-schema", 1, "refuses the definition of the tool mcp_bad"),
        ("claude-cap", 1, "at most 40 tokens"),
        ("claude-tools", 1, "accepts no tools"),
    ],
)
async def test_what_a_server_refuses_is_left_out_and_remembered(
    url: str, server: str, refusals: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    mark = uuid.uuid4().hex
    async with opened(url, server) as model:
        for _ in range(3):
            assert await said(model, [user(f"{mark}\n/say Here")]) == "Here"
    assert len(await bodies_of(url, mark)) == 3 + refusals, "it is refused once, and then known"
    assert len([message for message in caplog.messages if words in message and f"{url}/{server}" in message]) == 1


async def test_one_tool_that_is_refused_costs_that_tool_alone(url: str) -> None:
    for server in ("named-schema", "numbered-schema", "unnamed-schema", "claude-schema"):
        mark = uuid.uuid4().hex
        async with opened(url, server) as model:
            await said(model, [user(f"{mark}\n/say Here")])
        assert tools_in((await bodies_of(url, mark))[-1]) == ["look", "peek"]


async def test_a_search_for_a_tool_that_is_interrupted_blames_no_tool(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(url, "busy-schema") as model:
        with pytest.raises(ProviderError) as failed:
            await said(model, [user("/say Here")])
    assert failed.value.code == "rate_limited"
    assert not [message for message in caplog.messages if "refuses the definition" in message]


async def test_several_turns_at_once_look_for_the_refused_tool_once(url: str) -> None:
    mark = uuid.uuid4().hex
    async with opened(url, "unnamed-schema") as model:
        turns = (said(model, [user(f"{mark} {number}\n/say Here")]) for number in range(4))
        assert await asyncio.gather(*turns) == ["Here"] * 4
    assert all("mcp_bad" not in tools_in(body) for body in (await bodies_of(url, mark))[-4:])


async def test_several_turns_at_once_may_be_refused_the_same(url: str, caplog: pytest.LogCaptureFixture) -> None:
    for server in ("html", "no-tools-ollama", "named-schema", "no-system", "claude-cache", "claude-thinking"):
        caplog.clear()
        async with opened(url, server) as model:
            turns = (said(model, [user(f"{number}\n/say Here")]) for number in range(4))
            assert await asyncio.gather(*turns) == ["Here"] * 4
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


async def test_a_system_prompt_that_is_refused_comes_with_the_first_question(url: str) -> None:
    for server in ("no-system", "claude-system"):
        mark = uuid.uuid4().hex
        async with opened(url, server) as model:
            await said(model, [user(f"{mark}\n/say Here")])
        body = (await bodies_of(url, mark))[-1]
        assert "system" not in body
        assert body["messages"][0]["role"] == "user"
        assert "Be kind." in json.dumps(body["messages"][0])


def called(*ids: str) -> list[NewMessage]:
    calls = tuple(ToolCallPart(call_id, "look", {"at": call_id}) for call_id in ids)
    results = [NewMessage(Role.TOOL, (ToolResultPart(call_id, "look", f"seen {call_id}"),)) for call_id in ids]
    return [NewMessage(Role.ASSISTANT, calls), *results]


async def test_a_model_that_takes_one_call_at_a_time_reads_parallel_ones_one_by_one(url: str) -> None:
    mark = uuid.uuid4().hex
    async with opened(url, "one-call") as model:
        for _ in range(2):
            assert await said(model, [user(mark), *called("1", "2"), user("/say Both")]) == "Both"
    bodies = await bodies_of(url, mark)
    assert len(bodies) == 4, "parallel_tool_calls is refused too, and both are known then"
    roles = [message["role"] for message in bodies[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "tool", "assistant", "user"]


async def test_a_model_without_tools_reads_earlier_calls_as_text(url: str) -> None:
    for server in ("no-tools-ollama", "claude-tools"):
        mark = uuid.uuid4().hex
        async with opened(url, server) as model:
            for _ in range(2):
                assert await said(model, [user(mark), *called("1"), user("/say So")]) == "So"
        body = (await bodies_of(url, mark))[-1]
        assert [message["role"] for message in body["messages"] if message["role"] != "system"] == ["user"]
        assert "seen 1" in json.dumps(body["messages"])


@pytest.mark.parametrize("server", ["small", "claude-context"])
async def test_the_answer_gets_what_the_context_leaves(url: str, server: str) -> None:
    mark = uuid.uuid4().hex
    async with opened(url, server) as model:
        for _ in range(2):
            assert await said(model, [user(f"{mark}\n/say Hi")], most=8_192) == "Hi"
    bodies = await bodies_of(url, mark)
    assert len(bodies) == 3
    assert all(1_000 < body["max_tokens"] < 2_000 for body in bodies[1:])


async def test_tools_that_leave_no_room_are_left_out(url: str) -> None:
    tools = tuple(ToolSpec(f"tool_{number}", "Looks. " * 30, {"type": "object"}) for number in range(8))
    async with opened(url, "tiny") as model:
        for _ in range(2):
            assert await said(model, [user("/say Hi")], tools, most=8_192) == "Hi"


@pytest.mark.parametrize("server", ["small", "llamacpp", "silent-length", "studio", "claude-context"])
async def test_a_prompt_that_is_too_long_is_cut_to_half_and_then_to_the_last_exchange(url: str, server: str) -> None:
    mark = uuid.uuid4().hex
    rows: list[NewMessage] = []
    async with opened(url, server) as model:
        for number in range(12):
            rows.append(user(f"{mark}\n/say Answer {number}"))
            assert await said(model, rows, most=300) == f"Answer {number}"
            rows.append(NewMessage(Role.ASSISTANT, (TextPart("word " * 150),)))
        rows = [user(mark), NewMessage(Role.ASSISTANT, (TextPart("word " * 9_000),)), user(f"{mark}\n/say The last")]
        assert await said(model, rows, most=300) == "The last"
        assert await said(model, [user(f"{mark}\n/say Cut\n{'word ' * 9_000}")], most=300) == "Cut"
    assert len(await bodies_of(url, mark)) <= 14 + 6
