"""Anthropic's message stream, as events. Source: the Messages API, "Streaming messages"."""

from __future__ import annotations

import uuid

import orjson

from backend.chat.chunks import FinishReason
from backend.chat.models import Json, Usage
from executor.llm.clean_text import Mender, clean
from executor.llm.events import (
    Finished,
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from executor.llm.failures import ModelCallError, of_error
from executor.llm.sources import find_source
from executor.llm.sse import read_json

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length",
    "model_context_window_exceeded": "length", "tool_use": "tool-calls", "refusal": "content-filter",
}  # fmt: skip


class AnthropicDecoder:
    """See `retrying.Decoder`. Blocks come one after the other; those of unknown types (server tools) are left out."""

    def __init__(self, taken: set[str]) -> None:
        self.done = False
        self._taken = set(taken)
        self._block: dict[str, Json] = {}
        self._mender = Mender()
        self._signature = ""
        self._had_input = False
        self._calls = 0
        self._reason: str | None = None
        self._usage: dict[str, Json] = {}

    @property
    def reason_known(self) -> bool:
        return self._reason is not None

    def feed(self, payload: bytes) -> list[ModelEvent]:
        event = read_json(payload)
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
                self._count(event["message"].get("usage"))
            case "message_delta":
                self._count(event.get("usage"))
                self._reason = event["delta"].get("stop_reason") or self._reason
            case "message_stop":
                self.done = True
            case "error":
                raise of_error(event)
        return []

    def end(self) -> list[ModelEvent]:
        if self._reason is None:
            raise ModelCallError("provider_incomplete", again=True, note="no stop_reason")
        events = self._stop()
        reason = _REASONS.get(self._reason, "other")
        if self._calls and reason in ("stop", "other"):
            reason = "tool-calls"
        elif not self._calls and reason == "tool-calls":
            reason = "stop"
        events.append(Finished(reason, self._sum()))
        return events

    def _start(self, block: dict[str, Json]) -> list[ModelEvent]:
        events = self._stop()
        self._block = block
        match block.get("type"):
            case "text" if text := self._mender.mend(block.get("text") or ""):
                events.append(TextDelta(text))
            case "thinking":
                self._signature = block.get("signature") or ""
                if thought := self._mender.mend(block.get("thinking") or ""):
                    events.append(ReasoningDelta(thought))
            case "tool_use":
                self._calls += 1
                self._had_input = False
                events.append(ToolCallStart(self._calls - 1, self._call_id(block), clean(str(block.get("name") or ""))))
        return events

    def _delta(self, delta: dict[str, Json]) -> list[ModelEvent]:
        match delta["type"], self._block.get("type"):
            case "text_delta", "text":
                if text := self._mender.mend(delta["text"]):
                    return [TextDelta(text)]
            case "thinking_delta", "thinking":
                if thought := self._mender.mend(delta["thinking"]):
                    return [ReasoningDelta(thought)]
            case "citations_delta", "text":
                citation = delta.get("citation")
                if isinstance(citation, dict) and citation.get("type") == "web_search_result_location":
                    source = find_source(citation)
                    return [source] if source is not None else []
            case "signature_delta", "thinking":
                self._signature += delta["signature"]
            case "input_json_delta", "tool_use":
                if piece := clean(delta["partial_json"]):
                    self._had_input = True
                    return [ToolCallDelta(self._calls - 1, piece)]
        return []

    def _stop(self) -> list[ModelEvent]:
        """The end of the open block, if one is open."""
        block, self._block = self._block, {}
        rest = self._mender.end()
        match block.get("type"):
            case "text" if rest:
                return [TextDelta(rest)]
            case "thinking":
                end = ReasoningEnd(signature=self._signature or None)
                return [ReasoningDelta(rest), end] if rest else [end]
            case "redacted_thinking":
                return [ReasoningEnd(redacted=block.get("data"))]
            case "tool_use":
                end_call = ToolCallEnd(self._calls - 1)
                if block.get("input") and not self._had_input:
                    return [ToolCallDelta(self._calls - 1, orjson.dumps(block["input"]).decode()), end_call]
                return [end_call]
        return []

    def _call_id(self, block: dict[str, Json]) -> str:
        chosen = block.get("id")
        if not isinstance(chosen, str) or not chosen or chosen in self._taken:
            chosen = f"toolu_{uuid.uuid4().hex[:24]}"
        self._taken.add(chosen)
        return chosen

    def _count(self, usage: Json) -> None:
        """Numbers are running totals: a later one replaces an earlier one."""
        if isinstance(usage, dict):
            self._usage.update((name, value) for name, value in usage.items() if value is not None)

    def _sum(self) -> Usage:
        cached = int(self._usage.get("cache_read_input_tokens") or 0)
        written = int(self._usage.get("cache_creation_input_tokens") or 0)
        details = self._usage.get("output_tokens_details")
        return Usage(
            input_tokens=int(self._usage.get("input_tokens") or 0) + cached + written,
            output_tokens=int(self._usage.get("output_tokens") or 0),
            reasoning_tokens=int(details.get("thinking_tokens") or 0) if isinstance(details, dict) else 0,
            cached_tokens=cached,
        )
