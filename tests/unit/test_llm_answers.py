"""The contents of servers' answers: tags, calls, usage, citations, ends. Pieces of documents of 2026-11.

Named where they stand: xAI and Perplexity "Citations", Groq "Streaming", Moonshot "Kimi API: usage", LiteLLM
"provider_specific_fields", Anthropic "Handle streaming refusals", OpenAI "Refusals", DeepSeek "finish_reason".
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai as sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chat.models import NewMessage, Role, TextPart, ToolResultPart, Usage
from backend.errors import ProviderError
from executor.agent.response import Response
from executor.llm.answer_body import AnswerBody
from executor.llm.anthropic_stream import AnthropicDecoder
from executor.llm.arguments import parse_arguments
from executor.llm.body_reader import Read, read_from
from executor.llm.events import (
    Finished,
    ModelEvent,
    ReasoningDelta,
    Source,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageSoFar,
)
from executor.llm.failures import ModelCallError, of_response
from executor.llm.history import to_prompt_messages
from executor.llm.model import Prompt
from executor.llm.openai_stream import OpenAIDecoder
from executor.llm.provider_words import NO_KEY, masked
from executor.llm.retrying import ModelCallLimits, stream_events
from executor.llm.think_tags import TAGS, ThinkTags


def choice(delta: Any = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": delta or {}, "finish_reason": reason, **more}


def chunk(delta: Any = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [choice(delta, reason)], **more}


def openai(*chunks: Any) -> list[ModelEvent]:
    decoder = OpenAIDecoder(set())
    return [event for item in chunks for event in decoder.feed(json.dumps(item).encode())] + decoder.end()


def anthropic(*blocks: Any, delta: Any = None, start: Any = None) -> list[ModelEvent]:
    decoder = AnthropicDecoder(set())
    stream: list[Any] = [{"type": "message_start", "message": {"content": [], **(start or {})}}]
    for block, *deltas in blocks:
        stream.append({"type": "content_block_start", "content_block": block})
        stream += [{"type": "content_block_delta", "delta": piece} for piece in deltas]
        stream.append({"type": "content_block_stop"})
    stream.append({"type": "message_delta", "delta": {"stop_reason": "end_turn", **(delta or {})}, "usage": {}})
    return [event for item in stream for event in decoder.feed(json.dumps(item).encode())] + decoder.end()


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def thought_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningDelta))


def calls_of(events: list[ModelEvent]) -> list[tuple[str, Any]]:
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    assert len({start.id for start in starts}) == len(starts)
    texts = {start.index: "" for start in starts}
    for event in events:
        if isinstance(event, ToolCallDelta):
            texts[event.index] += event.json_text
    return [(start.name, parse_arguments(texts[start.index])) for start in starts]


def end_of(events: list[ModelEvent]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


# --- tags -------------------------------------------------------------------------------------------------------------

TAGGED = [
    (f"{opening}\nI think.\n{closing}\n\nYes, <b>", "I think.\n", "Yes, <b>") for opening, closing in TAGS.items()
]
UNTAGGED = ["", "<", "<thin", "  plain", "<b>x</b>", "say <think>no</think>", "</think>"]


@pytest.mark.parametrize(
    ("whole", "thought", "text"),
    [
        *TAGGED,
        *((text, "", text) for text in UNTAGGED),
        ("<think>\n\n</think>\n\nYes", "", "Yes"),
        ("<think>One</think> <think>Two</think> Yes", "OneTwo", "Yes"),
        ("\n<think>All of it </th", "All of it </th", ""),
        ("<think>a</think>b <think>c", "a", "b <think>c"),
    ],
)
@given(data=st.data())
def test_tags_at_the_beginning_hold_reasoning_however_the_text_is_cut(
    whole: str, thought: str, text: str, data: st.DataObject
) -> None:
    places = sorted({0, len(whole), *data.draw(st.lists(st.integers(0, len(whole))))})
    pieces = [whole[start:stop] for start, stop in itertools.pairwise(places)]
    events = openai(*(chunk({"content": piece}) for piece in pieces), chunk(reason="stop"))
    assert (thought_of(events), text_of(events)) == (thought, text)
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    events = anthropic([{"type": "text", "text": ""}, *deltas])
    assert (thought_of(events), text_of(events)) == (thought, text)
    kinds = [type(event).__name__ for event in events if not isinstance(event, UsageSoFar)]
    assert kinds.count("ReasoningEnd") == len([k for k, _ in itertools.groupby(kinds) if k == "ReasoningDelta"])


def test_a_server_that_separates_reasoning_may_say_any_tag() -> None:
    events = openai(chunk({"reasoning_content": "Hm"}), chunk({"content": "<think> is a tag"}), chunk(reason="stop"))
    assert (thought_of(events), text_of(events)) == ("Hm", "<think> is a tag")


def test_a_call_ends_reasoning_in_tags_that_were_not_closed() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "look", "arguments": "{}"}}
    events = openai(chunk({"content": "<think>I must look"}), chunk({"tool_calls": [call]}), chunk(reason="tool_calls"))
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["ReasoningDelta", "ReasoningEnd", "ToolCallStart", "ToolCallDelta", "ToolCallEnd", "Finished"]


def test_reasoning_in_tags_goes_back_in_tags_to_the_model_that_made_it() -> None:
    """The templates of these models cut it out where they want none; MiniMax M2 wants it whole in a tool loop."""
    from executor.llm.openai_messages import openai_messages

    decoder, response = OpenAIDecoder(set(), "server model"), Response("1", set())
    call = {"index": 0, "id": "a", "function": {"name": "look", "arguments": "{}"}}
    for item in (chunk({"content": "<think>I must look</think>Let me see."}), chunk({"tool_calls": [call]}, "stop")):
        for event in decoder.feed(json.dumps(item).encode()):
            response.take(event)
    for event in decoder.end():
        response.take(event)
    said = response.message()
    assert said is not None
    (made,) = response.calls
    rows = [
        NewMessage(Role.USER, (TextPart("q"),)), said,
        NewMessage(Role.TOOL, (ToolResultPart(made.tool_call_id, "look", "seen"),)),
    ]  # fmt: skip
    prompt = Prompt("", to_prompt_messages(rows))
    assert openai_messages(prompt, "server model")[1]["content"] == "<think>\nI must look\n</think>\n\nLet me see."
    assert openai_messages(prompt, "server other")[1]["content"] == "Let me see."


def test_what_is_held_back_is_text_when_nothing_follows() -> None:
    tags = ThinkTags()
    assert tags.feed(" <thi") == []
    assert tags.end() == [(False, " <thi")]


# --- calls ------------------------------------------------------------------------------------------------------------


def call(name: str | None, arguments: Any, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": arguments}}


TWO = [("look", {"at": 1}), ("look", {"at": 2})]


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([[call("look", '{"at":1}', id="a", index=0), call("look", '{"at":2}', id="a", index=1)]], TWO),
        ([[call("look", '{"at":1}', id="a"), call("look", '{"at":2}', id="a")]], TWO),
        ([[call("look", '{"at":1}', id="a", index=0)], [call("look", '{"at":2}', id="a", index=0)]], TWO),
        (
            [[call("look", "", id="a", index=0), call("look", "", id="a", index=1)],
             [call(None, '{"at":', index=0), call(None, '{"at":2}', index=1)], [call(None, "1}", index=0)]],
            TWO,
        ),
        ([[call("look", "", id="a", index=0)], [call("peek", "", id="a", index=0)]], [("look", {}), ("peek", {})]),
        (
            [[call("look", '{"at":', id="a", index="0")], [call(None, "1}", index="0")],
             [call("look", '{"at":2}', id="b", index="1")]],
            TWO,
        ),
        ([[None, call("look", {"at": 1}, id="a", index=0)], [{"index": 0, "function": None}]], TWO[:1]),
        ([[call("look", '{"at"', id="a", index=0)], [call("look", ":1}", id="a", index=0)]], TWO[:1]),
        ([[call("look", '{"at":1}', id="a", index=0)], [call("look", "", id="a", index=0)]], TWO[:1]),
    ],
)  # fmt: skip
def test_calls_are_told_apart_by_index_and_id(deltas: list[Any], expected: list[Any]) -> None:
    events = openai(*(chunk({"tool_calls": delta}) for delta in deltas), chunk(reason="tool_calls"))
    assert calls_of(events) == expected


def test_null_members_count_as_missing() -> None:
    empty = {"content": None, "tool_calls": None, "function_call": None, "annotations": None, "refusal": None}
    events = openai(
        {"choices": [None], "usage": None, "x_groq": None},
        chunk(empty),
        {"choices": [{"index": "0", "delta": {"content": "Yes"}, "finish_reason": None}]},
        {"choices": None},
        chunk({"content": [None, {"type": "text", "text": "!"}]}, "stop"),
    )
    assert text_of(events) == "Yes!"
    assert anthropic([{"type": "text", "text": None}, {"type": "text_delta", "text": None}])[-1] == Finished(
        "stop", Usage()
    )


def test_a_whole_message_may_come_in_one_event_and_is_not_said_twice() -> None:
    message = {"role": "assistant", "content": "Yes", "tool_calls": [call("look", '{"at":1}', id="a")]}
    events = openai({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    assert (text_of(events), calls_of(events)) == ("Yes", TWO[:1])
    repeated = {"choices": [{"index": 0, "delta": {"content": "s"}, "message": {"content": "Yes"}}]}
    end = {"choices": [{"index": 0, "delta": {}, "message": {"content": "Yes"}, "finish_reason": "stop"}]}
    assert text_of(openai(chunk({"content": "Ye"}), repeated, end)) == "Yes"


# --- usage, sources ---------------------------------------------------------------------------------------------------

COUNTS = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}


@pytest.mark.parametrize(
    "last",
    [
        {"choices": [], "usage": {**COUNTS, "cached_tokens": 3}},
        {"choices": [choice(None, "stop", usage={**COUNTS, "cached_tokens": 3})]},
        chunk(None, "stop", x_groq={"usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": 3}}}),
        {"choices": [], "usage": {**COUNTS, "prompt_cache_hit_tokens": 3}},
        {"choices": [], "usage": {**COUNTS, "prompt_tokens": 5.0, "cached_tokens": 3, "completion_tokens_details": 7}},
    ],
)  # fmt: skip
def test_usage_is_found_where_servers_put_it(last: Any) -> None:
    events = openai(chunk({"content": "Yes"}, "stop"), last)
    assert end_of(events).usage == Usage(5, 2, 0, 3)
    assert UsageSoFar(Usage(5, 2, 0, 3)) in events


PAGES = [Source("https://a.b/", "A"), Source("https://c.d/", None)]


@pytest.mark.parametrize(
    "cites",
    [
        chunk({}, citations=["https://a.b/", "https://c.d/"], search_results=[{"url": "https://a.b/", "title": "A"}]),
        chunk({"provider_specific_fields": {"citations": [[{"url": "https://a.b/", "title": "A"}, {"url": "x"}],
                                                          [{"url": "https://c.d/"}]]}}),
        chunk({"context": {"citations": [{"url": "https://a.b/", "title": "A"}, {"url": "https://c.d/"}]}}),
    ],
)  # fmt: skip
def test_pages_that_are_listed_beside_the_text_are_sources(cites: Any) -> None:
    events = openai(chunk({"content": "Yes [1]"}), cites, cites, chunk(reason="stop"))
    assert [event for event in events if isinstance(event, Source)] == PAGES


def test_litellm_passes_one_citation_at_a_time() -> None:
    deltas = [
        chunk({"provider_specific_fields": {"citation": {"url": page.url, "title": page.title}}}) for page in PAGES
    ]
    events = openai(*deltas, chunk(reason="stop"))
    assert [event for event in events if isinstance(event, Source)] == PAGES


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("model_length", "length"), ("max_tokens", "length"), ("SAFETY", "content-filter"), ("eos", "stop")],
)
def test_reasons_of_other_servers_are_known(reason: str, expected: str) -> None:
    assert end_of(openai(chunk({"content": "x"}, reason))).reason == expected


def test_an_end_for_want_of_resources_is_a_failure() -> None:
    with pytest.raises(ProviderError) as raised:
        openai(chunk({"content": "x"}, "insufficient_system_resource"))
    assert raised.value.code == "overloaded"


@pytest.mark.parametrize(
    "error",
    [
        {"object": "error", "message": "Too many", "type": "rate_limit_exceeded", "code": "429"},
        {"message": "Too many", "code": 429},
        [{"error": {"code": 429, "message": "Too many"}}],
        {"choices": [], "x_groq": {"error": {"code": 429, "message": "Too many"}}},
    ],
)
def test_an_error_inside_the_stream_is_read_in_any_shape(error: Any) -> None:
    with pytest.raises(ProviderError) as raised:
        openai(chunk({"content": "x"}), error)
    assert raised.value.code == "rate_limited"


def test_a_refusal_is_told_with_its_explanation() -> None:
    told = {"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "It could \n harm."}}
    end = end_of(anthropic([{"type": "text", "text": "Hello"}], delta=told))
    assert (end.reason, end.explanation) == ("content-filter", "It could harm.")
    events = openai(chunk({"refusal": "I cannot"}), chunk({"refusal": " do that."}), chunk(reason="stop"))
    assert (text_of(events), end_of(events).reason) == ("I cannot do that.", "content-filter")


def test_gemini_says_in_a_list_that_a_prompt_is_too_long() -> None:
    message = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    failure = of_response(400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": message}}], {})
    assert (failure.code, failure.again, failure.said) == ("context_too_long", False, message)


# --- what the log gets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("The model `claude-sonnet-4-5-20250929` has max_tokens 8192 > 4096", None),
        ("tokens per minute (TPM): Limit 6000, Requested 8000", None),
        (
            "Incorrect API key provided: abc**xyz. Find it there.",
            "Incorrect API key provided: [REDACTED] Find it there.",
        ),
        ("Received key gsk_abcdefgh and AIzaSyD123456789", "Received key [REDACTED] and [REDACTED]"),
        ("Authorization: Bearer abc.def", "Authorization: [REDACTED]"),
        ("a\x00b\n\tc\x1b[31m", "ab c [31m"),
        ("id 0123456789abcdef0123456789abcdef gone", "id [REDACTED] gone"),
    ],
)
def test_the_log_keeps_names_and_hides_keys(said: str, logged: str | None) -> None:
    assert masked(said) == (said if logged is None else logged)


KEY = "qwerty-key"


@asynccontextmanager
async def answered(body: bytes) -> AsyncIterator[Read]:
    async def pieces() -> AsyncIterator[bytes]:
        yield body

    yield read_from(pieces())


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"error": {"message": "%s is no key"}}\n\n',
        b'{"error": {"message": "%s is no key"}}',
        b"<html><title>%s is no key</title>",
        b"plainly: %s is no key",
        b'data: {"error": {"message": "' + 290 * b"x" + b' %s is no key"}}\n\n',
    ],
)
async def test_the_key_is_hidden_in_whatever_comes_with_the_status_200(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    events = stream_events(
        lambda: answered(body % KEY.encode()),
        lambda: OpenAIDecoder(set()),
        sdk,
        ModelCallLimits(attempts=1),
        secrets=[KEY],
    )
    with pytest.raises(ProviderError):
        async for _ in events:
            pass
    (record,) = caplog.records
    assert record.error  # type: ignore[attr-defined]
    assert KEY[:4] not in record.error  # type: ignore[attr-defined]


def test_the_key_for_servers_that_need_none_is_not_masked() -> None:
    assert masked("reasoning_effort: expected none or low", [NO_KEY]) == "reasoning_effort: expected none or low"


# --- what servers leave out or add --------------------------------------------------------------------------------


def body_events(decoder: OpenAIDecoder | AnthropicDecoder, *payloads: bytes) -> list[ModelEvent]:
    body = AnswerBody(decoder)
    events, failure = body.feed(b"".join(b"data: %b\n\n" % one for one in payloads))
    assert failure is None, failure.note
    return [*events, *decoder.end()]


@pytest.mark.parametrize("done", [b"[DONE]", b"[DONE] ", b" [DONE]\t"])
def test_the_mark_of_the_end_is_enough_without_a_finish_reason(done: bytes) -> None:
    said = json.dumps(chunk({"content": "Hi"})).encode()
    assert body_events(OpenAIDecoder(set()), said, done) == [TextDelta("Hi"), Finished("other", Usage())]
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    *_, end = body_events(OpenAIDecoder(set()), json.dumps(chunk({"tool_calls": [call]})).encode(), done)
    assert end == Finished("tool-calls", Usage())


@pytest.mark.parametrize("payloads", [[b"[DONE]"], [json.dumps(chunk({"content": "Hi"})).encode()]])
def test_without_the_mark_or_without_words_an_answer_without_a_reason_is_incomplete(payloads: list[bytes]) -> None:
    with pytest.raises(ModelCallError) as raised:
        body_events(OpenAIDecoder(set()), *payloads)
    assert raised.value.code == "provider_incomplete"


def test_events_without_data_are_skipped() -> None:
    said = [json.dumps(chunk({"content": word})).encode() for word in ("a", "b")]
    end = json.dumps(chunk(reason="stop")).encode()
    events = body_events(OpenAIDecoder(set()), b"", said[0], b" ", said[1], b"", end)
    assert events == [TextDelta("a"), TextDelta("b"), Finished("stop", Usage())]


def test_blocks_of_anthropics_format_may_have_no_start() -> None:
    given = [
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": " there"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]
    events = body_events(AnthropicDecoder(set()), *(json.dumps(one).encode() for one in given))
    assert [type(event).__name__ for event in events] == [
        "ReasoningDelta", "ReasoningEnd", "TextDelta", "TextDelta", "Finished",
    ]  # fmt: skip
