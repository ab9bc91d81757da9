"""The share of prompts that providers read from their caches, counted by the fakes as the providers document it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from backend.chat.models import NewMessage, Role, TextPart, ToolCallPart, ToolResultPart, Usage
from executor.llm.cache_marks import mark_openai
from executor.llm.fitting import fit
from executor.llm.history import to_prompt_messages
from executor.llm.model import Model, Prompt
from tests.fakes.running import fake_server
from tests.integration.test_providers import PROVIDERS, TOOLS, opened, user

SYSTEM = "You are a helpful assistant. " * 20


@pytest.fixture(scope="module")
async def urls() -> AsyncIterator[dict[str, str]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(fake_server(name)) for name in PROVIDERS}


async def usage_of(model: Model, rows: list[NewMessage], context: int) -> Usage:
    prompt = fit(Prompt(SYSTEM, to_prompt_messages(rows), TOOLS, 1_024), context)
    ends = [event async for event in model.stream(prompt)]
    return ends[-1].usage  # type: ignore[union-attr]


def cached_share(usages: list[Usage]) -> float:
    return sum(usage.cached_tokens for usage in usages) / sum(usage.input_tokens for usage in usages)


def answer(text: str) -> NewMessage:
    return NewMessage(Role.ASSISTANT, (TextPart(text),))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("context", [8_000, 16_000])
async def test_a_long_conversation_past_the_limit_is_read_from_the_cache(
    urls: dict[str, str], provider: str, context: int
) -> None:
    rows: list[NewMessage] = []
    usages: list[Usage] = []
    async with opened(provider, urls[provider], name="caches") as model:
        for turn in range(60):
            rows.append(user(f"{provider} {context} {turn}: " + "why is it so " * 20))
            usages.append(await usage_of(model, rows, context))
            rows.append(answer(f"Answer {turn}: " + "because it is like that. " * 40))
    past = next(
        turn for turn, usage in enumerate(usages) if turn and usage.input_tokens < usages[turn - 1].input_tokens
    )
    assert past < 40, "the conversation outgrows the context"
    assert cached_share(usages[past:]) > 0.8
    assert all(usage.input_tokens + 1_024 <= context for usage in usages)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("calls", [10, 30])
async def test_the_steps_of_a_turn_with_many_calls_are_read_from_the_cache(
    urls: dict[str, str], provider: str, calls: int
) -> None:
    rows = [user(f"{provider} {calls}: look at all of these. " + "word " * 500)]
    usages: list[Usage] = []
    async with opened(provider, urls[provider], name="caches") as model:
        for step in range(8):
            usages.append(await usage_of(model, rows, 128_000))
            made = [ToolCallPart(f"c{step}_{n}", "look", {"at": f"{step}-{n}"}) for n in range(calls)]
            rows.append(NewMessage(Role.ASSISTANT, (TextPart("next"), *made)))
            results = [ToolResultPart(call.tool_call_id, "look", "result " * 60) for call in made]
            rows += [NewMessage(Role.TOOL, (result,)) for result in results]
    for before, after in itertools.pairwise(usages):
        assert after.cached_tokens == before.input_tokens, "all of the request before"


async def test_a_new_conversation_reads_the_tools_and_the_system_prompt_of_another(urls: dict[str, str]) -> None:
    async with opened("anthropic", urls["anthropic"], name="caches") as model:
        await usage_of(model, [user("one of them")], 16_000)
        assert (await usage_of(model, [user("another one")], 16_000)).cached_tokens > 100


BODY: dict[str, Any] = {
    "model": "anthropic/claude-sonnet-5-5",
    "messages": [
        {"role": "system", "content": "s"}, {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    ],
}  # fmt: skip


def test_claude_behind_another_format_gets_the_marks_that_its_server_documents() -> None:
    routed = mark_openai(BODY, base_url="https://openrouter.ai/api/v1", cache_key="k")
    assert routed == {**BODY, "cache_control": {"type": "ephemeral"}}
    proxied = mark_openai(BODY, base_url="http://127.0.0.1:4000", cache_key="k")
    marked = [message["content"][-1].get("cache_control") for message in proxied["messages"] if
              isinstance(message["content"], list)]  # fmt: skip
    assert [isinstance(message["content"], list) for message in proxied["messages"]] == [True, True, False, False, True]
    assert marked == [{"type": "ephemeral"}] * 3
    assert BODY["messages"][0]["content"] == "s", "the messages themselves stay as they are"


def test_openai_gets_a_key_and_other_servers_get_nothing() -> None:
    plain = {**BODY, "model": "m"}
    assert mark_openai(plain, base_url="https://api.openai.com/v1", cache_key="k") == {**plain, "prompt_cache_key": "k"}
    assert mark_openai(plain, base_url="https://api.openai.com/v1", cache_key="") == plain
    assert mark_openai(plain, base_url="http://127.0.0.1:8000/v1", cache_key="k") == plain
