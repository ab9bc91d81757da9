"""A decoder that turns Anthropic's message stream into events. Source: the Messages API, "Streaming messages"."""

from __future__ import annotations

import uuid
from typing import Any

import orjson

from backend.chat.models import Json, ProviderData
from backend.chat.protocol.chunks import FinishReason
from executor.llm.clean_text import PiecewiseCleaner, clean
from executor.llm.delta_template import DeltaTemplate
from executor.llm.events import (
    Finished,
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageSoFar,
)
from executor.llm.failures import ModelCallError, of_error
from executor.llm.provider_data import thinking_data, tool_use_data
from executor.llm.sources import find_source
from executor.llm.sse import read_json
from executor.llm.think_tags import ThinkTags
from executor.llm.token_counts import anthropic_usage

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length",
    "model_context_window_exceeded": "length", "tool_use": "tool-calls", "refusal": "content-filter",
}  # fmt: skip
_IMPLIED = {"text_delta": "text", "thinking_delta": "thinking"}
"""The types of blocks whose `content_block_start` some compatible servers leave out."""
MAX_EXPLANATION = 500  # characters


class AnthropicDecoder:
    """A `retrying.Decoder`. Blocks arrive one after the other; blocks of unknown types (server tools) are skipped.

    `taken` holds the tool call ids of the prompt. A call that arrives with one of them gets a new id. `owner` names the
    model, to which alone its thinking and the data in `provider` of its events go back.
    """

    def __init__(self, taken: set[str], owner: str = "") -> None:
        self.done = False
        self._owner = owner
        self._taken = set(taken)
        self._block: dict[str, Json] = {}
        self._mender = PiecewiseCleaner()
        self._tags = ThinkTags()
        self._thinks_in_text = False
        self._signature = ""
        self._had_input = False
        self._calls = 0
        self._reason: str | None = None
        self._explanation: str | None = None
        self._usage: dict[str, Json] = {}
        self._template = DeltaTemplate(_only_text)

    @property
    def reason_known(self) -> bool:
        return self._reason is not None

    def feed(self, payload: bytes) -> list[ModelEvent]:
        if self._is_plain and (text := self._template.text_of(payload)) is not None:
            return [TextDelta(text)]
        events = self._read(read_json(payload))
        self._template.learn(payload, events)
        return events

    @property
    def _is_plain(self) -> bool:
        """Returns True if text of the open block is passed on as it comes: nothing is held back, and no tag is open."""
        if self._thinks_in_text or self._block.get("type") != "text":
            return False
        return self._tags.plain and not self._mender.holds

    def _read(self, event: Json) -> list[ModelEvent]:
        if not isinstance(event, dict):
            return []
        match event.get("type"):
            case "content_block_delta":
                return self._delta(event["delta"])
            case "content_block_start":
                return self._start(event["content_block"])
            case "content_block_stop":
                return self._stop()
            case "message_start":
                return self._message(event["message"])
            case "message_delta":
                return self._message_delta(event["delta"], event.get("usage"))
            case "message":
                return self.whole(event)
            case "message_stop":
                self.done = True
            case "error":
                raise of_error(event)
            case _ if event.get("error"):
                raise of_error(event)
        return []

    def whole(self, document: Json) -> list[ModelEvent]:
        """Reads an answer that is one document: a message, or an error."""
        if not isinstance(document, dict) or not isinstance(document.get("content"), list):
            raise of_error(document)
        events = self._message(document)
        events += self._message_delta(document, None)
        self._reason = self._reason or ("end_turn" if document["content"] else None)
        return events

    def end(self) -> list[ModelEvent]:
        if self._reason is None:
            raise ModelCallError("provider_incomplete", again=True, note="no stop_reason")
        events = self._stop() + self._end_tags()
        reason = _REASONS.get(self._reason, "other")
        if self._calls and reason in ("stop", "other"):
            reason = "tool-calls"
        elif not self._calls and reason == "tool-calls":
            reason = "stop"
        refused = self._reason == "refusal"
        explanation = self._explanation if refused else None
        usage = anthropic_usage(self._usage)
        events.append(Finished(reason, usage, explanation=explanation, refused=refused))
        return events

    def _message(self, message: dict[str, Json]) -> list[ModelEvent]:
        """Reads the head of a message. Some servers put whole blocks into it."""
        events: list[ModelEvent] = []
        for block in message.get("content") or ():
            if isinstance(block, dict):
                events += self._start(block)
        return events + self._stop() + self._count(message.get("usage"))

    def _message_delta(self, delta: Json, usage: Json) -> list[ModelEvent]:
        if isinstance(delta, dict):
            self._reason = delta.get("stop_reason") or self._reason
            details = delta.get("stop_details")
            told = details.get("explanation") if isinstance(details, dict) else None
            if isinstance(told, str) and (words := " ".join(clean(told).split())):
                self._explanation = words[:MAX_EXPLANATION]
        return self._count(usage)

    def _start(self, block: dict[str, Json]) -> list[ModelEvent]:
        events = self._stop()
        self._block = block
        match block.get("type"):
            case "text":
                events += self._say(self._mender.mend(block.get("text") or ""))
                events += [source for citation in block.get("citations") or () if (source := find_source(citation))]
            case "thinking":
                events += self._end_tags()
                self._signature = block.get("signature") or ""
                if thought := self._mender.mend(block.get("thinking") or ""):
                    events.append(ReasoningDelta(thought))
            case "tool_use":
                events += self._end_tags()
                self._calls += 1
                self._had_input = False
                events.append(ToolCallStart(self._calls - 1, self._call_id(block), clean(str(block.get("name") or ""))))
        return events

    def _delta(self, delta: dict[str, Json]) -> list[ModelEvent]:
        if not self._block and (implied := _IMPLIED.get(str(delta.get("type")))) is not None:
            self._block = {"type": implied}
        match delta.get("type"), self._block.get("type"):
            case "text_delta", "text":
                return self._say(self._mender.mend(delta.get("text") or ""))
            case "thinking_delta", "thinking":
                if thought := self._mender.mend(delta.get("thinking") or ""):
                    return [ReasoningDelta(thought)]
            case "citations_delta", "text":
                citation = delta.get("citation")
                if isinstance(citation, dict) and citation.get("type") == "web_search_result_location":
                    source = find_source(citation)
                    return [source] if source is not None else []
            case "signature_delta", "thinking":
                self._signature += delta.get("signature") or ""
            case "input_json_delta", "tool_use":
                if piece := clean(delta.get("partial_json") or ""):
                    self._had_input = True
                    return [ToolCallDelta(self._calls - 1, piece)]
        return []

    def _stop(self) -> list[ModelEvent]:
        """Ends the open block, if there is one."""
        block, self._block = self._block, {}
        rest = self._mender.end()
        match block.get("type"):
            case "text":
                return self._say(rest)
            case "thinking":
                end = ReasoningEnd(self._signature or None, provider=thinking_data(self._owner, block, self._signature))
                return [ReasoningDelta(rest), end] if rest else [end]
            case "redacted_thinking":
                return [ReasoningEnd(redacted=block.get("data"), provider=ProviderData(self._owner, {}))]
            case "tool_use":
                end_call = ToolCallEnd(self._calls - 1, tool_use_data(self._owner, block))
                if block.get("input") and not self._had_input:
                    return [ToolCallDelta(self._calls - 1, orjson.dumps(block["input"]).decode()), end_call]
                return [end_call]
        return []

    def _say(self, text: str) -> list[ModelEvent]:
        """Returns the events of a text, in which reasoning may stand between tags."""
        return self._split(self._tags.feed(text)) if text else []

    def _end_tags(self) -> list[ModelEvent]:
        events = self._split(self._tags.end())
        if self._thinks_in_text:
            self._thinks_in_text = False
            events.append(ReasoningEnd())
        return events

    def _split(self, pieces: list[tuple[bool, str]]) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        for is_thought, piece in pieces:
            if self._thinks_in_text and not is_thought:
                events.append(ReasoningEnd())
            self._thinks_in_text = is_thought
            events.append(ReasoningDelta(piece) if is_thought else TextDelta(piece))
        return events

    def _call_id(self, block: dict[str, Json]) -> str:
        chosen = block.get("id")
        if not isinstance(chosen, str) or not chosen or chosen in self._taken:
            chosen = f"toolu_{uuid.uuid4().hex[:24]}"
        self._taken.add(chosen)
        return chosen

    def _count(self, usage: Json) -> list[ModelEvent]:
        """Stores token counts. They are running totals, so a later number replaces an earlier one."""
        if not isinstance(usage, dict):
            return []
        self._usage.update((name, value) for name, value in usage.items() if value is not None)
        return [UsageSoFar(anthropic_usage(self._usage))]


def _only_text(event: Any) -> str | None:
    """Returns the text of a delta of text. See `DeltaTemplate`."""
    if event["type"] != "content_block_delta" or event["delta"]["type"] != "text_delta":
        return None
    text: str | None = event["delta"]["text"]
    return text
