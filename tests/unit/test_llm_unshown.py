"""What a model call yields before anything of its answer is shown: hidden reasoning and blanks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai as sdk
import pytest

from executor.llm.anthropic_stream import AnthropicDecoder
from executor.llm.body_reader import Read, read_from
from executor.llm.events import Finished, ModelEvent, ReasoningDelta, ReasoningEnd, Source, TextDelta, ToolCallStart
from executor.llm.failures import ModelCallError
from executor.llm.openai_stream import OpenAIDecoder
from executor.llm.responses_stream import ResponsesDecoder
from executor.llm.retrying import Decoder, ModelCallLimits, stream_events

DECODERS: dict[str, type[Any]] = {
    "openai": OpenAIDecoder, "anthropic": AnthropicDecoder, "responses": ResponsesDecoder,
}  # fmt: skip


class Server:
    """Answers with one body after the other. A body ends with the connection reset, unless it is the last."""

    def __init__(self, kind: str, *bodies: list[dict[str, Any]]) -> None:
        self._kind = kind
        self._bodies = list(bodies)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Read]:
        body = self._bodies.pop(0)
        breaks = bool(self._bodies)

        async def chunks() -> AsyncIterator[bytes]:
            for document in body:
                yield f"data: {json.dumps(document)}\n\n".encode()
            if breaks:
                raise ConnectionResetError("reset by the server")

        yield read_from(chunks())

    def decoder(self) -> Decoder:
        made: Decoder = DECODERS[self._kind](set(), "me")
        return made

    async def call(self, attempts: int = 4, into: list[ModelEvent] | None = None) -> list[ModelEvent]:
        events: list[ModelEvent] = [] if into is None else into
        async for event in stream_events(
            self.connect, self.decoder, sdk, ModelCallLimits(attempts=attempts, backoff=0)
        ):
            events.append(event)
        return events


def item(place: int, name: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"type": f"response.output_item.{name}", "output_index": place, "item": given}


def thought(place: int) -> dict[str, Any]:
    """Returns reasoning without a summary, as of a model whose reasoning only its provider can read."""
    return item(place, "done", {"type": "reasoning", "id": f"rs_{place}", "summary": [], "encrypted_content": "e30="})


def said(place: int, text: str) -> dict[str, Any]:
    return item(
        place, "done", {"type": "message", "id": f"m{place}", "content": [{"type": "output_text", "text": text}]}
    )


COMPLETED = {"type": "response.completed", "response": {"status": "completed"}}
CITED = {"type": "url_citation", "url_citation": {"url": "https://example.org/"}}
ANTHROPIC_START = {"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 0}}}
REDACTED = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "redacted_thinking", "data": "e30="}},
    {"type": "content_block_stop", "index": 0},
]
SIGNED = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "e30="}},
    {"type": "content_block_stop", "index": 0},
]
HIDDEN = [
    pytest.param("responses", [thought(0)], id="encrypted"),
    pytest.param("responses", [thought(0), said(1, "\n\n")], id="encrypted-and-blank"),
    pytest.param("anthropic", [ANTHROPIC_START, *REDACTED], id="redacted"),
    pytest.param("anthropic", [ANTHROPIC_START, *SIGNED], id="signed"),
    pytest.param("openai", [{"choices": [{"delta": {"content": "\n", "annotations": [CITED]}}]}], id="cited-and-blank"),
]
WHOLE = {
    "responses": [said(0, "Yes"), COMPLETED],
    "anthropic": [
        ANTHROPIC_START,
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Yes"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ],
    "openai": [{"choices": [{"delta": {"content": "Yes"}}]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]}],
}


@pytest.mark.parametrize(("kind", "hidden"), HIDDEN)
async def test_a_call_that_fails_after_hidden_reasoning_is_repeated(kind: str, hidden: list[dict[str, Any]]) -> None:
    events = await Server(kind, hidden, WHOLE[kind]).call()
    shown = [event for event in events if isinstance(event, ReasoningEnd | Source | TextDelta | Finished)]
    assert [type(event) for event in shown] == [TextDelta, Finished]


@pytest.mark.parametrize(("kind", "hidden"), HIDDEN)
async def test_what_failed_after_hidden_reasoning_has_shown_nothing(kind: str, hidden: list[dict[str, Any]]) -> None:
    """So its fallback may answer, and the code is that of a lost connection, not of an answer that broke off."""
    events: list[ModelEvent] = []
    with pytest.raises(ModelCallError) as failure:
        await Server(kind, hidden, []).call(attempts=1, into=events)
    assert failure.value.code == "connection"
    assert not [event for event in events if isinstance(event, ReasoningEnd | Source | TextDelta)]


async def test_hidden_reasoning_comes_before_what_follows_it() -> None:
    call = item(2, "done", {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"})
    events = await Server("responses", [thought(0), said(1, "One"), thought(3), call, COMPLETED]).call()
    kinds = [type(event) for event in events if isinstance(event, ReasoningEnd | TextDelta | ToolCallStart)]
    assert kinds == [ReasoningEnd, TextDelta, ReasoningEnd, ToolCallStart]


async def test_an_answer_of_nothing_but_hidden_reasoning_keeps_it() -> None:
    events = await Server("responses", [thought(0), COMPLETED]).call()
    assert [type(event) for event in events] == [ReasoningEnd, Finished]


async def test_blank_text_between_two_items_of_reasoning_is_no_text() -> None:
    events = await Server("responses", [thought(0), said(1, "\n\n"), thought(2), said(3, "\n Yes"), COMPLETED]).call()
    assert [type(event) for event in events] == [ReasoningEnd, ReasoningEnd, TextDelta, Finished]
    assert events[2] == TextDelta("\n Yes")


async def test_blanks_inside_a_text_stay() -> None:
    pieces = ["\n", " ", "One", "\n\n", "two", "\n"]
    deltas: list[dict[str, Any]] = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    events = await Server("openai", [*deltas, *WHOLE["openai"][1:]]).call()
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "".join(pieces)


async def test_blank_text_between_shown_reasoning_and_a_call_is_no_text() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "look", "arguments": "{}"}}
    documents: list[dict[str, Any]] = [
        {"choices": [{"delta": {"reasoning_content": "Hm"}}]},
        {"choices": [{"delta": {"content": "\n\n"}}]},
        {"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]},
    ]
    events = await Server("openai", documents).call()
    kinds = [type(event) for event in events if isinstance(event, ReasoningDelta | TextDelta | ToolCallStart)]
    assert kinds == [ReasoningDelta, ToolCallStart]
