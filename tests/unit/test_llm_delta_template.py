"""The short way to read deltas gives the events of the ordinary one, whatever a server mixes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.chat.models import Usage
from executor.llm.answer_body import AnswerBody, Decoder
from executor.llm.anthropic_stream import AnthropicDecoder
from executor.llm.delta_template import MOST_LESSONS, DeltaTemplate
from executor.llm.events import ModelEvent, TextDelta, ToolCallStart, UsageSoFar
from executor.llm.openai_stream import OpenAIDecoder

TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["<think>", "</think>", "<", "content", "text", "a", '"', "\\", "\u2028", "\x7f", "~", "hi", "é"]),
)
HEAD = {"id": "c", "object": "chat.completion.chunk", "model": "m"}


def chat(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


def openai_payload(text: str, kind: int) -> Any:
    match kind:
        case 0 | 1 | 2 | 3:
            return chat({"content": text})
        case 4:
            return chat({"role": "assistant", "content": text, "refusal": None})
        case 5:
            return chat({"reasoning_content": text})
        case 6:
            return chat({"content": "same", "reasoning_details": [{"type": "reasoning.text", "text": text}]})
        case 7:
            return chat({"content": text}, usage={"prompt_tokens": len(text)})
        case 8:
            return chat({"content": text}, citations=["https://example.org/"])
        case 9:
            return chat({"tool_calls": [{"index": 0, "id": "i", "function": {"name": "f", "arguments": text}}]})
        case 10:
            return chat({"refusal": text})
        case _:
            return {**HEAD, "choices": [{"index": 1, "delta": {"content": text}}]}


def anthropic_payload(text: str, kind: int) -> Any:
    match kind:
        case 0 | 1 | 2 | 3:
            return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        case 4:
            return {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": text}}
        case 5:
            return {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": text}}
        case 6:
            return {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": text}}
        case 7:
            return {"type": "content_block_stop", "index": 0}
        case 8:
            return {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": len(text)}}}
        case 9:
            return {"type": "content_block_start", "content_block": {"type": "server_tool_use", "id": "t", "name": "f"}}
        case _:
            return {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": text}}


MAKERS: dict[str, tuple[Any, Any]] = {
    "openai": (OpenAIDecoder, openai_payload),
    "anthropic": (AnthropicDecoder, anthropic_payload),
}


def heard(decoder: Decoder, pieces: list[bytes]) -> list[ModelEvent]:
    """Returns the events; deltas of text are not joined, since every one of them is sent alone.

    A call whose id was used before gets a random one. Here its index replaces it, so that two decoders can be compared.
    """
    body, events = AnswerBody(decoder), []
    for piece in pieces:
        more, failure = body.feed(piece)
        assert failure is None, failure.note
        events += more
    for event in events:
        if isinstance(event, ToolCallStart) and event.id.startswith("call_"):
            event.id = f"call {event.index}"
    return events


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=60)
@given(
    said=st.lists(st.tuples(TEXTS, st.integers(0, 11), st.booleans(), st.booleans()), max_size=12),
    cuts=st.lists(st.integers(1, 400), max_size=8),
)
def test_the_short_way_gives_the_same_events(kind: str, said: list[Any], cuts: list[int]) -> None:
    make, payload = MAKERS[kind]
    written = [
        json.dumps(payload(text, which), ensure_ascii=escaped, separators=(",", ":") if tight else None).encode(
            "utf-8", "surrogatepass"
        )
        for text, which, escaped, tight in said
    ]
    body = b"".join(b"data: %b\n\n" % one for one in written)
    places = sorted({cut for cut in cuts if cut < len(body)})
    cut = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
    short, ordinary = make(set(), "me"), make(set(), "me")
    ordinary._template = DeltaTemplate(lambda _: None)
    assert heard(short, cut) == heard(ordinary, [body])


def test_calls_with_one_id_are_compared_by_their_places() -> None:
    calls = [{"index": 0, "id": "i", "function": {"name": "f", "arguments": "{}"}}] * 2
    body = b"".join(b"data: %b\n\n" % json.dumps(chat({"tool_calls": [call]})).encode() for call in calls)
    first, second = (heard(OpenAIDecoder(set(), "me"), [body]) for _ in range(2))
    assert first == second
    assert [event.id for event in first if isinstance(event, ToolCallStart)] == ["i", "call 1"]


@pytest.mark.parametrize("kind", MAKERS)
def test_equal_deltas_are_not_parsed_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, payload = MAKERS[kind]
    decoder = make(set(), "me")
    if kind == "anthropic":
        decoder.feed(json.dumps(anthropic_payload("", 4)).encode())
    for text in ("Once ", "upon "):
        decoder.feed(json.dumps(payload(text, 0)).encode())
    monkeypatch.setattr(f"executor.llm.{kind}_stream.read_json", None)
    events = [
        event
        for text in ("a ", "tïme")
        for event in decoder.feed(json.dumps(payload(text, 0), ensure_ascii=False).encode())
    ]
    assert events == [TextDelta("a "), TextDelta("tïme")]


@pytest.mark.parametrize("place", ["chunk", "choice", "x_groq"])
def test_a_count_of_tokens_that_comes_again_is_read_again(place: str) -> None:
    decoder = OpenAIDecoder(set(), "me")

    def say(text: str, tokens: int) -> list[ModelEvent]:
        payload = chat({"content": text})
        found = {"chunk": payload, "choice": payload["choices"][0], "x_groq": payload.setdefault("x_groq", {})}[place]
        found["usage"] = {"prompt_tokens": tokens}
        return decoder.feed(json.dumps(payload).encode())

    for tokens in (1, 1, 2, 1):
        said = say("hi", tokens)
    assert UsageSoFar(Usage(1)) in said


def test_a_server_whose_payloads_always_differ_is_not_studied_for_ever() -> None:
    looked: list[Any] = []
    template = DeltaTemplate(looked.append)
    for number in range(100):
        template.learn(b'{"n":%d,"text":"a"}' % number, [TextDelta("a")])
    assert len(looked) <= 2 * MOST_LESSONS
