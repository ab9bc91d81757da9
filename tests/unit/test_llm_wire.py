"""Bytes from a provider: SSE parsing, text cleaning, tool arguments, failures, and decoders fed with anything."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from email.utils import formatdate

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.api.json_body import load_json
from backend.chat.models import ProviderData
from backend.errors import ProviderError
from backend.json_client.retry_after import retry_after_of
from executor.llm import sse
from executor.llm.anthropic_stream import AnthropicDecoder
from executor.llm.arguments import parse_arguments
from executor.llm.clean_text import PiecewiseCleaner, clean
from executor.llm.events import ModelEvent, Source, TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from executor.llm.failures import SENTENCES, of_error, of_response
from executor.llm.openai_stream import OpenAIDecoder
from executor.llm.responses_stream import ResponsesDecoder
from executor.llm.retrying import Decoder
from executor.llm.sources import MAX_TITLE, MAX_URL, find_source
from executor.llm.sse import SseParser, read_json

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))


def parsed(data: bytes, cuts: list[int]) -> list[bytes]:
    parser = SseParser()
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    events = [event for start, stop in itertools.pairwise(places) for event in parser.feed(data[start:stop])]
    return events + parser.end()


@given(st.lists(LINE), st.sampled_from(["\n", "\r", "\r\n"]), st.lists(st.integers(0, 2_000)))
def test_events_survive_any_cut_of_the_bytes_and_any_line_end(texts: list[str], end: str, cuts: list[int]) -> None:
    data = "".join(f"event: x{end}data: {text}{end}: comment{end}id: 1{end}{end}" for text in texts).encode()
    assert parsed(data, cuts) == [text.encode() for text in texts]
    assert parsed(data, list(range(len(data)))) == [text.encode() for text in texts]


def test_only_cr_and_lf_end_a_line() -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1eh"
    assert parsed(f"data: {text}\n\n".encode(), []) == [text.encode()]


def test_lines_of_one_event_are_joined_and_a_missing_last_blank_line_is_forgiven() -> None:
    assert parsed(b"\xef\xbb\xbfdata:one\ndata: two\n\ndata\ndata: three", []) == [b"one\ntwo", b"three"]


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1_000)
    for piece in (b"x" * 100, b"data: " + b"x" * 100 + b"\n"):
        with pytest.raises(ValueError, match="too large"):
            parsed(piece * 20, list(range(0, 3_000, 50)))


def test_json_that_orjson_refuses_is_read_where_it_can_be() -> None:
    assert read_json(b'"\\ud83d"') == "\ud83d"
    assert read_json(b'"\xff"') == "\ufffd"
    for bad in (b"NaN", b"{", b"", b"[" * 100_000):
        with pytest.raises(ValueError, match=r"."):
            read_json(bad)


@given(st.text(st.characters()), st.lists(st.integers(0, 50)))
def test_text_in_pieces_comes_out_as_the_cleaned_whole(text: str, cuts: list[int]) -> None:
    halves = text.encode("utf-16-le", "surrogatepass")
    units = [halves[place : place + 2].decode("utf-16-le", "surrogatepass") for place in range(0, len(halves), 2)]
    places = sorted({min(cut, len(units)) for cut in cuts} | {0, len(units)})
    mender = PiecewiseCleaner()
    out = "".join(mender.mend("".join(units[start:stop])) for start, stop in itertools.pairwise(places)) + mender.end()
    assert out == clean("".join(units))
    out.encode("utf-8")
    assert "\0" not in out


def test_nuls_and_lone_surrogates_are_cleaned_from_text() -> None:
    assert clean("a\ud83d\ude00b\ud83dc\ude00\0") == "a\U0001f600b\ufffdc\ufffd"
    assert clean("plain é \u2028") == "plain é \u2028"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (" \n", {}),
        ('{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ('{"a": "\\ud83d\\u0000", "k\\u0000": 1}', {"a": "\ufffd", "k": 1}),
        ('{"a": ', '{"a": '),
        ("[1]", "[1]"),
        ('"text"', '"text"'),
        ('{"a": NaN}', '{"a": NaN}'),
        ("x\0\ud83d", "x\ufffd"),
        ('{"a":' * 24 + "1" + "}" * 24, '{"a":' * 24 + "1" + "}" * 24),
    ],
)
def test_arguments_are_an_object_or_the_text(text: str, expected: object) -> None:
    assert parse_arguments(text) == expected


@pytest.mark.parametrize("more", ["", ', "k": "\\ud83d"'])
def test_integers_that_other_readers_refuse_become_floats_or_text(more: str) -> None:
    long = "1" * 400
    given = parse_arguments(f'{{"a": [{10**20}, {-(10**20)}, {2**64 - 1}, {-(2**63)}]{more}}}')
    assert [type(number) for number in given["a"]] == [float, float, int, int]
    assert given["a"] == [1e20, -1e20, 2**64 - 1, -(2**63)]
    assert parse_arguments(f'{{"a": {long}}}') == {"a": long}


def test_arguments_nested_as_deep_as_it_goes_come_back_through_the_strict_reader() -> None:
    text = '{"a":' * 23 + "1" + "}" * 23
    given = parse_arguments(text)
    assert isinstance(given, dict)
    assert load_json(json.dumps({"messages": [{"parts": [{"input": given}]}]}).encode())


# --- decoders ---------------------------------------------------------------------------------------------------------

NAMES = (
    "type", "error", "choices", "delta", "content", "reasoning_content", "reasoning_details", "tool_calls", "function",
    "name", "arguments", "id", "index", "finish_reason", "usage", "prompt_tokens", "content_block", "text", "thinking",
    "signature", "partial_json", "message", "stop_reason", "annotations", "url_citation", "citation", "url", "title",
    "item", "output_index", "call_id", "response", "output", "status", "summary", "part", "content_index",
)  # fmt: skip
RESPONSES = (
    "tool_use", "function_call", "reasoning", "message", "summary_text", "output_text", "completed",
    "response.output_item.added", "response.output_item.done", "response.output_text.delta", "response.completed",
    "response.function_call_arguments.delta", "response.reasoning_summary_text.delta", "response.content_part.done",
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers(-5, 600) | st.text(max_size=5) | st.sampled_from(["text_delta", "tool_use"])
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 600)
    | st.text(max_size=5)
    | st.just("text_delta")
    | st.sampled_from(RESPONSES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)
KNOWN_ERRORS = (ProviderError, LookupError, TypeError, AttributeError, ValueError, RecursionError)


@given(st.lists(ANYTHING, max_size=6), st.sampled_from([OpenAIDecoder, AnthropicDecoder, ResponsesDecoder]))
def test_a_decoder_fed_with_anything_fails_only_in_ways_that_are_caught(
    documents: list[object], make: Callable[[set[str]], Decoder]
) -> None:
    decoder = make(set())
    events: list[ModelEvent] = []
    try:
        for document in documents:
            events.extend(decoder.feed(orjson.dumps(document)))
        events.extend(decoder.end())
    except KNOWN_ERRORS:
        return
    started = [event.index for event in events if isinstance(event, ToolCallStart)]
    assert started == list(range(len(started)))
    assert sorted(event.index for event in events if isinstance(event, ToolCallEnd)) == started
    assert all(event.index in started for event in events if isinstance(event, ToolCallDelta))
    assert all(event.text for event in events if isinstance(event, TextDelta))


def chunk(**delta: object) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()


def test_a_call_id_that_the_prompt_has_already_is_replaced() -> None:
    call = chunk(tool_calls=[{"index": 0, "id": "call_0", "function": {"name": "look", "arguments": "{}"}}])
    start = OpenAIDecoder({"call_0"}).feed(call)[0]
    assert isinstance(start, ToolCallStart)
    assert start.id != "call_0"
    block = {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "t", "name": "look"},
    }
    start = AnthropicDecoder({"t"}).feed(json.dumps(block).encode())[0]
    assert isinstance(start, ToolCallStart)
    assert start.id != "t"
    item = {"type": "function_call", "call_id": "t", "name": "look"}
    added = {"type": "response.output_item.added", "output_index": 0, "item": item}
    decoder = ResponsesDecoder({"t"}, "me")
    start, end = decoder.feed(json.dumps(added).encode())[0], decoder.feed(_done(added))[-1]
    assert isinstance(start, ToolCallStart)
    assert start.id != "t"
    assert isinstance(end, ToolCallEnd)
    assert end.provider == ProviderData("me", {"id": "t"}), "the provider gets its own id back"


def _done(added: dict[str, object]) -> bytes:
    return json.dumps({**added, "type": "response.output_item.done"}).encode()


def test_items_with_one_index_are_told_apart_by_their_beginnings() -> None:
    decoder = ResponsesDecoder(set())
    events: list[ModelEvent] = []
    for name in ("one", "two"):
        item = {"type": "function_call", "call_id": name, "name": name, "arguments": ""}
        events += decoder.feed(json.dumps({"type": "response.output_item.added", "item": item}).encode())
        delta = {"type": "response.function_call_arguments.delta", "delta": "{}"}
        events += decoder.feed(json.dumps(delta).encode())
    events += decoder.feed(b'{"type":"response.completed","response":{"status":"completed"}}') + decoder.end()
    kinds = [type(event).__name__ for event in events]
    assert kinds == [*["ToolCallStart", "ToolCallDelta", "ToolCallEnd"] * 2, "Finished"]


def test_mistral_lists_and_the_legacy_function_call_are_read() -> None:
    decoder = OpenAIDecoder(set())
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    events = decoder.feed(chunk(content=[thinking])) + decoder.feed(chunk(content=[{"type": "text", "text": "yes"}]))
    events += decoder.feed(chunk(function_call={"name": "look", "arguments": '{"a"'}))
    events += decoder.feed(chunk(function_call={"arguments": ":1}"}))
    events += decoder.feed(b'{"choices":[{"finish_reason":"function_call"}]}') + decoder.end()
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["ReasoningDelta", "ReasoningEnd", "TextDelta", "ToolCallStart", "ToolCallDelta", "ToolCallDelta",
                     "ToolCallEnd", "Finished"]  # fmt: skip


@pytest.mark.parametrize(
    "citation",
    [None, [], "https://a.b/", {}, {"url": 1}, {"url": "javascript:alert(1)"}, {"url": " https://a.b/"},
     {"url": "https://"}, {"url": "https://a.b/ c"}, {"url": "https://a.b/\n"}, {"url": "https://a.b/\0"},
     {"url": "https://a.b/\ud83d"}, {"url": "data:text/html,https://a.b/"}, {"url": "https://a.b/" + "c" * MAX_URL}],
)  # fmt: skip
def test_what_is_no_web_address_is_no_source_and_no_error(citation: object) -> None:
    assert find_source(citation) is None
    annotations = [{"type": "url_citation", "url_citation": citation}, {"type": "file", "url_citation": {}}, 1]
    good = {"type": "url_citation", "url_citation": {"url": "HTTPS://a.b/"}}
    assert OpenAIDecoder(set()).feed(chunk(annotations=[*annotations, good])) == [Source("HTTPS://a.b/")]
    assert OpenAIDecoder(set()).feed(chunk(annotations=citation)) == []
    decoder = AnthropicDecoder(set())
    decoder.feed(b'{"type":"content_block_start","content_block":{"type":"text"}}')
    delta = {"type": "citations_delta", "citation": citation}
    assert decoder.feed(json.dumps({"type": "content_block_delta", "delta": delta}).encode()) == []


@pytest.mark.parametrize(
    ("title", "kept"),
    [("  A \n\t page ", "A page"), (" ", None), (7, None), ("x\0\ud83d", "x\ufffd"), ("t" * 999, "t" * MAX_TITLE)],
)
def test_a_title_is_one_line_of_some_length_or_none(title: object, kept: str | None) -> None:
    assert find_source({"url": "https://a.b/", "title": title}) == Source("https://a.b/", kept)


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "code", "again"),
    [
        (400, "This model's maximum context length is 8192 tokens", "context_too_long", False),
        (400, "input length and `max_tokens` exceed context limit: 1 + 2 > 2", "context_too_long", False),
        (400, "Please reduce: too many tokens", "context_too_long", False),
        (400, "The response was filtered by the content management policy", "content_filter", False),
        (403, "Your input was flagged", "content_filter", False),
        (403, "Country not supported", "authentication", False),
        (429, "You exceeded your current quota, check your plan and billing details", "rate_limited", True),
        (400, "Your credit balance is too low", "quota_exceeded", False),
        (418, "I am a teapot", "bad_request", False),
        (520, "<html>cloud</html>", "provider_error", True),
    ],
)
def test_an_error_is_told_by_its_status_and_its_words(status: int, message: str, code: str, again: bool) -> None:
    failure = of_response(status, {"message": message, "type": None}, {})
    assert (failure.code, failure.again) == (code, again)
    assert message not in str(failure) + failure.note


@given(ANYTHING)
def test_any_error_object_has_a_known_sentence(error: object) -> None:
    failure = of_error(error)
    assert str(failure) in SENTENCES.values()


def test_the_server_may_say_whether_to_try_again_and_when() -> None:
    assert of_response(400, None, {"x-should-retry": "true"}).again
    assert not of_response(500, None, {"x-should-retry": "false"}).again
    assert retry_after_of({"retry-after": "7"}) == 7
    assert retry_after_of({"retry-after-ms": "1500", "retry-after": "7"}) == 1.5
    assert retry_after_of({"retry-after": formatdate(time.time() + 100)}) == pytest.approx(100, abs=5)
    assert retry_after_of({"retry-after": formatdate(0)}) == 0
    assert retry_after_of({"retry-after": "soon"}) is None
    assert retry_after_of({}) is None
