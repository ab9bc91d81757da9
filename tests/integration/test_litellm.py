"""LiteLLM's real proxy, as one more server of OpenAI's and of Anthropic's format. The models behind it are fakes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from backend.chat.models import NewMessage, Part, ReasoningPart, Role, TextPart, ToolCallPart, ToolResultPart
from backend.config import Settings
from executor.llm.events import Finished, ModelEvent, ReasoningEnd, TextDelta, ToolCallEnd, ToolCallStart
from executor.llm.failures import ModelCallError
from executor.llm.history import to_prompt_messages
from executor.llm.model import Model, Prompt, ToolSpec
from executor.llm.providers import open_model
from tests.fakes.running import bodies_of, fake_server
from tests.integration.running_api import new_id
from tests.plain_http import http_client
from tests.servers.litellm_install import HINT, find_or_install
from tests.servers.ports import free_port
from tests.servers.starting import OutputFile
from tests.speed import limit

KEY = "sk-of-the-tests"
TOOLS = (ToolSpec("look", "Looks", {"type": "object", "properties": {"at": {"type": "string"}}}),)
WAYS = {"gpt": ("openai-chat", "gpt"), "claude": ("openai-chat", "claude"), "messages": ("anthropic", "claude")}
"""By name: our provider, and the model at the proxy. In Anthropic's format, it asks OpenAI by the Responses API."""
LIMIT = limit(60)


@dataclass(frozen=True, slots=True)
class Proxy:
    """The models as the executor opens them, and the URLs of the fakes behind them."""

    models: dict[str, Model]
    behind: dict[str, str]


@asynccontextmanager
async def litellm(folder: Path, behind: dict[str, str]) -> AsyncIterator[str]:
    """Starts the proxy, which takes 8 s of CPU, and yields its URL."""
    program = await asyncio.to_thread(find_or_install)
    if program is None:
        pytest.skip(HINT)
    gpt = {"model": "openai/gpt-6-sol", "api_base": f"{behind['openai']}/v1", "api_key": "k"}
    claude = {"model": "anthropic/claude-sonnet-5-5", "api_base": behind["anthropic"], "api_key": "k"}
    listed = [{"model_name": name, "litellm_params": one} for name, one in (("gpt", gpt), ("claude", claude))]
    file = folder / "litellm.json"  # YAML can be JSON
    file.write_text(json.dumps({"model_list": listed, "litellm_settings": {"telemetry": False, "num_retries": 0}}))
    own = {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with OutputFile() as output:
        process = await asyncio.create_subprocess_exec(
            *(program, "--config", file, "--host", "127.0.0.1", "--port", str(port)),
            stdout=output, stderr=output, env={**os.environ, **own},
        )  # fmt: skip
        try:
            async with asyncio.timeout(limit(120)), http_client(timeout=LIMIT) as http:
                while not await _is_up(http, url):
                    assert process.returncode is None, output.tail()
                    await asyncio.sleep(0.2)  # between two looks of a bounded wait
            yield url
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _is_up(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/health/liveliness")).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
async def proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Proxy]:
    async with AsyncExitStack() as stack:
        behind = {name: await stack.enter_async_context(fake_server(name)) for name in ("openai", "anthropic")}
        url = await stack.enter_async_context(litellm(tmp_path_factory.mktemp("litellm"), behind))
        models = {}
        for way, (provider, model) in WAYS.items():
            base = url if provider == "anthropic" else f"{url}/v1"
            settings = Settings(chat_provider=provider, chat_base_url=base, chat_model=model, chat_api_key=KEY)  # type: ignore[arg-type]
            models[way] = await stack.enter_async_context(open_model(settings))
        yield Proxy(models, behind)


def user(text: str) -> NewMessage:
    return NewMessage(Role.USER, (TextPart(text),))


async def hear(model: Model, rows: list[NewMessage]) -> list[ModelEvent]:
    prompt = Prompt("Be kind.", to_prompt_messages(rows), TOOLS, 4_000)
    async with asyncio.timeout(LIMIT), aclosing(model.stream(prompt)) as stream:
        return [event async for event in stream]


def said(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def answer_in(events: list[ModelEvent], thought: str) -> NewMessage:
    """Returns the message that is stored of an answer with reasoning and calls."""
    return NewMessage(Role.ASSISTANT, tuple(_parts_in(events, thought)))


def _parts_in(events: list[ModelEvent], thought: str) -> Iterator[Part]:
    ends = {event.index: event.provider for event in events if isinstance(event, ToolCallEnd)}
    (finished,) = [event for event in events if isinstance(event, Finished)]
    for event in events:
        if isinstance(event, ReasoningEnd):
            yield ReasoningPart(thought, event.signature, event.redacted, finished.provider or event.provider)
        elif isinstance(event, ToolCallStart):
            yield ToolCallPart(event.id, event.name, {"at": "x"}, provider=ends[event.index])


@pytest.mark.parametrize("way", WAYS)
async def test_a_turn_with_reasoning_and_calls_and_the_next_one_are_accepted(proxy: Proxy, way: str) -> None:
    model, mark = proxy.models[way], new_id()
    question = user(f'{mark}\n/think hm\n/tool look {{"at": "x"}}\n/tool look {{"at": "x"}}\n/then\n/say seen it')
    events = await hear(model, [question])
    answer = answer_in(events, "hm")
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].usage.input_tokens > 0) == ("tool-calls", True)
    calls = [part for part in answer.parts if isinstance(part, ToolCallPart)]
    assert len(calls) == 2
    results = [NewMessage(Role.TOOL, (ToolResultPart(call.tool_call_id, "look", "a lake"),)) for call in calls]
    assert said(await hear(model, [question, answer, *results])) == "seen it"
    behind = await bodies_of(proxy.behind["openai" if way == "gpt" else "anthropic"], mark)
    assert len(behind) == 2, "nothing was refused and asked again"
    if way != "gpt":  # what Anthropic signed has come back to it, through two translations
        (thinking,) = [block for block in behind[1]["messages"][1]["content"] if block["type"] == "thinking"]
        assert (thinking["thinking"], thinking["signature"][:4]) == ("hm", "sig-")


@pytest.mark.parametrize("way", WAYS)
async def test_its_errors_are_told_apart(proxy: Proxy, way: str) -> None:
    for command, code in {"/status 401": "authentication", "/error context": "context_too_long"}.items():
        with pytest.raises(ModelCallError) as failure:
            await hear(proxy.models[way], [user(f"{new_id()}\n{command}")])
        assert failure.value.code == code
        assert "sk-" not in failure.value.said


@pytest.mark.parametrize("way", WAYS)
async def test_a_short_rate_limit_is_waited_for(proxy: Proxy, way: str) -> None:
    mark = new_id()
    assert said(await hear(proxy.models[way], [user(f"{mark}\n/status 429 1 1\n/say now")])) == "now"
    assert len(await bodies_of(proxy.behind["openai" if way == "gpt" else "anthropic"], mark)) == 2


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_can_be_left_and_the_next_one_begins(proxy: Proxy, way: str) -> None:
    prompt = Prompt("", to_prompt_messages([user("/stream 500 20")]), (), 4_000)
    async with asyncio.timeout(LIMIT), aclosing(proxy.models[way].stream(prompt)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    assert said(await hear(proxy.models[way], [user("/say again")])) == "again"
