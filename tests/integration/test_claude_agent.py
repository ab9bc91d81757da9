"""The Claude Agent SDK as the engine of a model call: its real program, and a fake of Anthropic's server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from backend.chat.models import NewMessage, Part, Role, TextPart, ToolCallPart, ToolResultPart
from backend.config import Settings
from executor.llm.events import Finished, ModelEvent, TextDelta, ToolCallStart
from executor.llm.failures import ModelCallError
from executor.llm.history import to_prompt_messages
from executor.llm.model import Model, Prompt, ToolSpec
from executor.llm.providers import open_model
from tests.fakes.running import bodies_of, fake_server
from tests.servers.claude_install import HINT, find_or_install
from tests.speed import limit

LIMIT = limit(60)
TOOLS = (ToolSpec("look", "Looks", {"type": "object", "properties": {"at": {"type": "string"}}}),)


@pytest.fixture(scope="module")
def packages() -> Iterator[Path]:
    """The folder of the SDK, which can be imported meanwhile."""
    found = find_or_install()
    if found is None:
        pytest.skip(HINT)
    sys.path.append(str(found))
    try:
        yield found
    finally:
        sys.path.remove(str(found))


@pytest.fixture(scope="module")
async def url(packages: Path) -> AsyncIterator[str]:
    async with fake_server("anthropic") as url:
        yield url


@pytest.fixture(scope="module")
async def model(url: str) -> AsyncIterator[Model]:
    async with open_model(settings_of(url)) as model:
        yield model


def settings_of(url: str, **given: Any) -> Settings:
    key = {"chat_api_key": "sk-of-the-tests", **given}
    return Settings(chat_provider="claude_agent", chat_base_url=url, chat_model="claude-sonnet-4-5", **key)


def user(text: str) -> NewMessage:
    return NewMessage(Role.USER, (TextPart(text),))


async def hear(model: Model, rows: list[NewMessage], system: str = "Be kind.") -> list[ModelEvent]:
    prompt = Prompt(system, to_prompt_messages(rows), TOOLS, 4_000, cache_key=uuid.uuid4().hex)
    async with asyncio.timeout(LIMIT), aclosing(model.stream(prompt)) as stream:
        return [event async for event in stream]


def said(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def children() -> set[int]:
    """Returns the processes of Claude Code that this process has started."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == os.getpid() and b"--input-format" in (folder / "cmdline").read_bytes():
                    found.add(int(folder.name))
            except OSError:
                continue
    return found


async def test_an_answer_comes_in_pieces_with_its_tokens(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    events = await hear(model, [user(f"{mark}\n/stream 5 20")])
    assert said(events) == "0 1 2 3 4 "
    assert len([event for event in events if isinstance(event, TextDelta)]) == 5
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.reason == "stop"
    assert (end.usage.input_tokens, end.usage.output_tokens) == (11, 5)
    (body,) = await bodies_of(url, mark)
    assert [tool["name"] for tool in body["tools"]] == ["mcp__copilot__look"]
    assert body["system"][-1]["text"] == "Be kind."
    assert body["max_tokens"] == 4_000
    assert not children()


async def test_the_texts_of_users_arrive_as_they_are(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    text = f"/clear {mark} @/etc/hostname\n!ls\n/say Well"
    events = await hear(model, [user(text), NewMessage(Role.ASSISTANT, (TextPart("Yes."),)), user(f"/context {text}")])
    assert said(events) == "Well"
    (body,) = await bodies_of(url, mark)
    texts = [block["text"] for message in body["messages"] for block in message["content"]]
    assert [text for text in texts if not text.startswith("<system-reminder>")] == [text, "Yes.", f"/context {text}"]


async def test_calls_in_parallel_end_the_step_and_their_results_are_in_the_next_one(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    calls = "\n".join(f'/tool mcp__copilot__look {{"at":"{place}"}}' for place in "abc")
    rows = [user("Hi"), NewMessage(Role.ASSISTANT, (TextPart("Hello."),)), user(f"{mark}\n/say Hm\n{calls}\n/then")]
    events = await hear(model, rows)
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    assert [start.name for start in starts] == ["look"] * 3
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "tool-calls"
    parts: tuple[Part, ...] = (TextPart("Hm"), *(ToolCallPart(one.id, "look", {"at": "x"}) for one in starts))
    results = [ToolResultPart(one.id, "look", f"seen {number}") for number, one in enumerate(starts)]
    rows += [NewMessage(Role.ASSISTANT, parts), *(NewMessage(Role.TOOL, (result,)) for result in results)]
    events = await hear(model, rows)
    assert said(events).startswith("The tools answered seen 0 and seen 1 and seen 2")
    first, second = await bodies_of(url, mark)
    assert [message["role"] for message in second["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert [block["type"] for block in second["messages"][3]["content"]] == ["text"] + ["tool_use"] * 3
    assert second["messages"][3]["content"][1]["name"] == "mcp__copilot__look"
    asked = [block["id"] for block in second["messages"][3]["content"][1:]]
    assert [block["tool_use_id"] for block in second["messages"][4]["content"]] == asked
    assert {tool["name"] for body in (first, second) for tool in body["tools"]} == {"mcp__copilot__look"}
    assert not children()


async def test_a_call_of_an_unknown_tool_or_with_a_wrong_input_asks_the_model_once(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    events = await hear(model, [user(f'{mark}\n/tool Bash {{"command":"true"}}\n/tool mcp__copilot__look {{"at":7}}')])
    assert [event.name for event in events if isinstance(event, ToolCallStart)] == ["Bash", "look"]
    assert len(await bodies_of(url, mark)) == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [("/status 400", "bad_request"), ("/status 529", "overloaded"), ("/status 403", "authentication")],
)
async def test_failures_have_our_codes_and_are_no_text(url: str, command: str, code: str) -> None:
    async with open_model(settings_of(url)) as model:
        with pytest.raises(ModelCallError) as caught:
            await hear(model, [user(f"{uuid.uuid4().hex}\n{command}")])
    assert caught.value.code == code
    assert "sk-" not in caught.value.said
    assert not children()


async def test_a_wrong_key_is_an_authentication_failure(url: str) -> None:
    async with open_model(settings_of(url, chat_api_key="wrong")) as model:
        with pytest.raises(ModelCallError) as caught:
            await hear(model, [user("Hello")])
    assert caught.value.code == "authentication"


async def test_a_break_in_mid_answer_is_incomplete(model: Model) -> None:
    with pytest.raises(ModelCallError) as caught:
        await hear(model, [user(f"{uuid.uuid4().hex}\n/stream 3 100\n/drop")])
    assert caught.value.code == "provider_incomplete"


async def test_leaving_early_ends_the_process_at_once(model: Model) -> None:
    prompt = Prompt("", to_prompt_messages([user(f"{uuid.uuid4().hex}\n/say One\n/hang")]), TOOLS)
    async with asyncio.timeout(LIMIT):
        async with aclosing(model.stream(prompt)) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
            assert len(children()) == 1
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < limit(1)
    assert not children()


async def test_a_cancel_while_it_starts_leaves_no_process(model: Model) -> None:
    task = asyncio.create_task(hear(model, [user("/say One")]))
    async with asyncio.timeout(LIMIT):
        while not children():
            await asyncio.sleep(0.01)  # between two looks of a bounded wait
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()


async def test_a_killed_program_is_an_incomplete_answer(model: Model) -> None:
    prompt = Prompt("", to_prompt_messages([user(f"{uuid.uuid4().hex}\n/say One\n/hang")]), TOOLS)

    async def hear_until_killed() -> None:
        async with asyncio.timeout(LIMIT), aclosing(model.stream(prompt)) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    for pid in children():
                        os.kill(pid, signal.SIGKILL)

    with pytest.raises(ModelCallError) as caught:
        await hear_until_killed()
    assert caught.value.code == "provider_incomplete"


async def test_its_environment_has_nothing_of_the_executor(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_WEBHOOK_SECRET", "a secret of the executor")
    async with open_model(settings_of(url)) as model:
        prompt = Prompt("My system.", to_prompt_messages([user(f"{uuid.uuid4().hex}\n/say One\n/hang")]), TOOLS)
        async with asyncio.timeout(LIMIT), aclosing(model.stream(prompt)) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
            (pid,) = children()
            environment = Path(f"/proc/{pid}/environ").read_text()
            command = Path(f"/proc/{pid}/cmdline").read_text()
    assert "a secret of the executor" not in environment
    assert "sk-of-the-tests" in environment
    assert "sk-of-the-tests" not in command
    assert "My system." not in command
