"""The scripted model: contract, section 8."""

from __future__ import annotations

import asyncio
import uuid

import orjson
import pytest

from backend.chat.models import NewMessage, Role, TextPart, ToolCallPart, ToolResultPart
from backend.config import Settings
from backend.errors import ProviderError
from executor.llm.events import (
    Finished,
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    Source,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from executor.llm.model import Prompt, ToolSpec
from executor.llm.providers import open_model
from executor.llm.scripted import ScriptedModel
from executor.llm.titles import MAX_TITLE, UNTITLED, first_words


async def events_of(asked: str, *since: NewMessage) -> list[ModelEvent]:
    prompt = Prompt("You are kind.", [NewMessage(Role.USER, (TextPart("<page>"), TextPart(asked))), *since])
    return [event async for event in ScriptedModel(word_delay=0).stream(prompt)]


async def collect(asked: str, seen: list[ModelEvent]) -> None:
    async for event in ScriptedModel().stream(Prompt("", [NewMessage(Role.USER, (TextPart(asked),))])):
        seen.append(event)


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_stream_gives_that_many_deltas() -> None:
    *deltas, last = await events_of("/stream 200")
    assert deltas == [TextDelta(f"{number} ") for number in range(200)]
    assert isinstance(last, Finished)
    assert last.reason == "stop"
    assert last.usage.output_tokens == 200


async def test_stream_lets_others_run() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    job = asyncio.create_task(other())
    await events_of("/stream 3200")
    job.cancel()
    assert turns >= 100


async def test_stream_waits_between_deltas() -> None:
    began = asyncio.get_running_loop().time()
    await events_of("/stream 5 20")
    assert asyncio.get_running_loop().time() - began >= 0.1


async def test_tool_lines_are_parallel_calls_of_one_step_and_then_commented() -> None:
    events = await events_of('/tool look {"at": "the sky above"}\n/tool peek')
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    assert [(start.index, start.name) for start in starts] == [(0, "look"), (1, "peek")]
    texts = [
        "".join(e.json_text for e in events if isinstance(e, ToolCallDelta) and e.index == index) for index in (0, 1)
    ]
    assert texts == ['{"at": "the sky above"}', "{}"]
    assert [event.index for event in events if isinstance(event, ToolCallEnd)] == [0, 1]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "tool-calls"
    since = [
        NewMessage(Role.ASSISTANT, tuple(ToolCallPart(start.id, start.name, {}) for start in starts)),
        NewMessage(Role.TOOL, (ToolResultPart(starts[0].id, "look", {"type": "x", "message": "Blue."}),)),
        NewMessage(
            Role.TOOL, (ToolResultPart(starts[1].id, "peek", {"type": "error", "message": "No"}, is_error=True),)
        ),
    ]
    comment = await events_of("/tool look {}\n/tool peek", *since)
    assert text_of(comment) == "The tool look answered: Blue. The tool peek failed: No."


async def test_work_that_goes_on_elsewhere_is_reported() -> None:
    since = [
        NewMessage(Role.ASSISTANT, (ToolCallPart("1", "make", {}),)),
        NewMessage(
            Role.TOOL, (ToolResultPart("1", "make", {"type": "operation_started", "message": "For the model."}),)
        ),
    ]
    assert "Its result will appear here by itself" in text_of(await events_of("/tool make {}", *since))


async def test_markdown_is_sent_with_its_line_breaks() -> None:
    text = text_of(await events_of("/markdown"))
    assert "\n\n```python\n" in text
    assert "\n|---|:-:|--:|\n" in text


async def test_then_makes_a_second_step() -> None:
    script = "/say One.\n/tool look {}\n/then\n/say Two.\n/tool peek {}\n/then\n/stream 3"
    first = await events_of(script)
    step = [
        NewMessage(Role.ASSISTANT, (ToolCallPart("1", "look", {}),)),
        NewMessage(Role.TOOL, (ToolResultPart("1", "look", ""),)),
    ]
    second = await events_of(script, *step)
    third = await events_of(script, *step, *step)
    assert [text_of(events) for events in (first, second, third)] == ["One.", "Two.", "0 1 2 "]


async def test_fail_raises_after_what_came_before() -> None:
    seen: list[ModelEvent] = []
    with pytest.raises(ProviderError) as caught:
        await collect("/stream 2\n/fail", seen)
    assert seen == [TextDelta("0 "), TextDelta("1 ")]
    assert caught.value.code == "provider_error"


async def test_reason_thinks_first() -> None:
    events = await events_of("/reason First this\n/say then that")
    assert events[:3] == [ReasoningDelta("First "), ReasoningDelta("this"), ReasoningEnd()]
    assert text_of(events) == "then that"
    assert text_of(await events_of("/reason alone"))


async def test_source_cites_a_page() -> None:
    events = await events_of(
        "/source https://a.b/ One page\n/source javascript:alert(1)\n/source https://c.d/\n/say so"
    )
    assert events[:3] == [Source("https://a.b/", "One page"), Source("https://c.d/"), TextDelta("so")]
    assert text_of(await events_of("/source https://a.b/"))


@pytest.mark.parametrize("asked", ["What can you do for me?", "help"])
async def test_what_it_can_do_is_answered_with_messages_that_work(asked: str) -> None:
    assert "“Create an agent that adds two numbers”" in text_of(await events_of(asked))


async def test_anything_else_is_answered_word_by_word() -> None:
    mark = uuid.uuid4().hex
    events = await events_of(f"What is {mark}?")
    assert mark in text_of(events)
    assert all(len(event.text.split()) == 1 for event in events if isinstance(event, TextDelta))
    assert text_of(await events_of("/unknown"))
    assert "“Hello”. I am" in text_of(await events_of("Hello"))
    assert "“Hello!” I am" in text_of(await events_of("Hello!"))


@pytest.mark.parametrize("rest", ["", " abc", " 0", " -5"])
async def test_a_stream_of_nothing_is_answered_with_what_the_command_takes(rest: str) -> None:
    assert "takes a whole number" in text_of(await events_of(f"/stream{rest}"))


@pytest.mark.parametrize(
    ("asked", "tool", "wish"),
    [
        ("Create an agent that reads mail", "create_agent", {"description": "reads mail"}),
        ("Create an agent that does this: read\n- When? Now", "create_agent", {"description": "read\n- When? Now"}),
        ("Change the agent a-1 like this: at 9", "edit_agent", {"agent_id": "a-1", "changes": "at 9"}),
        ("Customize the template a/b like this: at 9", "customize_agent", {"agent_id": "a/b", "modifications": "at 9"}),
    ],
)
async def test_a_request_for_an_agent_is_a_call_if_there_is_the_tool(
    asked: str, tool: str, wish: dict[str, str]
) -> None:
    def prompt(*names: str) -> Prompt:
        tools = [ToolSpec(name, "", {}) for name in names]
        return Prompt("", [NewMessage(Role.USER, (TextPart(asked),))], tools)

    events = [event async for event in ScriptedModel().stream(prompt("other", tool))]
    assert [event.name for event in events if isinstance(event, ToolCallStart)] == [tool]
    said = "".join(event.json_text for event in events if isinstance(event, ToolCallDelta))
    assert orjson.loads(said) == wish
    without = [event async for event in ScriptedModel(word_delay=0).stream(prompt("other"))]
    assert not [event for event in without if isinstance(event, ToolCallStart)]


async def test_it_is_the_provider_when_no_key_is_set() -> None:
    async with open_model(Settings(chat_provider="scripted")) as model:
        assert model.name == "scripted"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  two\n lines ", "two lines"),
        ("", UNTITLED),
        ("word " * 30, "word " * 11 + "word…"),
        ("x" * 100, "x" * 59 + "…"),
        ("y" * 59 + " tail", "y" * 59 + "…"),
    ],
)
def test_first_words_are_short_and_end_at_a_word(text: str, title: str) -> None:
    assert first_words(text) == title
    assert len(first_words(text)) <= MAX_TITLE
