"""The stream of an OpenAI-compatible server, as events. Source: OpenAI's chat completion chunk, and what others add.

Servers differ: reasoning comes as `reasoning_content`, `reasoning` or `reasoning_details`; tool call deltas come
without index or id, or with one index for several calls; errors come inside of the stream; the usage comes with the
last chunk or in one of its own, without choices; citations come in any delta, or in a whole message with the end.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

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
from executor.llm.sources import cited_pages
from executor.llm.sse import read_json

_REASONS: dict[str, FinishReason] = {
    "stop": "stop", "length": "length", "content_filter": "content-filter", "tool_calls": "tool-calls",
    "function_call": "tool-calls",
}  # fmt: skip


@dataclass(slots=True)
class _Call:
    index: int
    provider_id: str | None
    started: bool = False
    waiting: list[str] = field(default_factory=list)
    """JSON text that came before the name."""


class OpenAIDecoder:
    """See `retrying.Decoder`. `taken` are tool call ids that the prompt has already: a call gets another one."""

    def __init__(self, taken: set[str]) -> None:
        self.done = False
        self._taken = set(taken)
        self._text = Mender()
        self._reasoning = Mender()
        self._thinks = False
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._reason: str | None = None
        self._usage = Usage()

    @property
    def reason_known(self) -> bool:
        return self._reason is not None

    def feed(self, payload: bytes) -> list[ModelEvent]:
        if payload == b"[DONE]":
            self.done = True
            return []
        chunk = read_json(payload)
        if not isinstance(chunk, dict):
            return []
        if error := chunk.get("error"):
            raise of_error(error)
        if usage := chunk.get("usage"):
            self._usage = _usage_of(usage)
        events: list[ModelEvent] = []
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue
            if delta := choice.get("delta"):
                self._read_delta(delta, events)
            if reason := choice.get("finish_reason"):
                self._reason = str(reason)
                if isinstance(message := choice.get("message"), dict):
                    events.extend(cited_pages(message.get("annotations")))
        return events

    def end(self) -> list[ModelEvent]:
        if self._reason is None:
            raise ModelCallError("provider_incomplete", again=True, note="no finish_reason")
        if self._reason == "error":
            raise ModelCallError("provider_error", again=True, note="finish_reason=error")
        events: list[ModelEvent] = []
        self._end_reasoning(events)
        if rest := self._text.end():
            events.append(TextDelta(rest))
        for call in self._calls:
            if not call.started:
                self._start(call, "unknown", events)
            events.append(ToolCallEnd(call.index))
        reason = _REASONS.get(self._reason, "other")
        if self._calls and reason in ("stop", "other"):
            reason = "tool-calls"
        elif not self._calls and reason == "tool-calls":
            reason = "stop"
        events.append(Finished(reason, self._usage))
        return events

    def _read_delta(self, delta: dict[str, Json], events: list[ModelEvent]) -> None:
        content = delta.get("content")
        thought = delta.get("reasoning_content") or delta.get("reasoning") or _thought_in(delta, content)
        if thought and isinstance(thought, str) and (thought := self._reasoning.mend(thought)):
            self._thinks = True
            events.append(ReasoningDelta(thought))
        text = (content if isinstance(content, str) else _text_in(content)) or delta.get("refusal")
        if text:
            self._end_reasoning(events)
            if mended := self._text.mend(text):
                events.append(TextDelta(mended))
        if calls := delta.get("tool_calls"):
            for call in calls:
                self._read_call(call, events)
        elif legacy := delta.get("function_call"):
            self._read_call({"index": 0, "function": legacy}, events)
        if annotations := delta.get("annotations"):
            events.extend(cited_pages(annotations))

    def _end_reasoning(self, events: list[ModelEvent]) -> None:
        if not self._thinks:
            return
        self._thinks = False
        if rest := self._reasoning.end():
            events.append(ReasoningDelta(rest))
        events.append(ReasoningEnd())

    def _read_call(self, delta: dict[str, Json], events: list[ModelEvent]) -> None:
        function = delta.get("function") or {}
        call = self._call_of(delta, bool(function.get("name")))
        if call is None:
            return
        if not call.started and (name := function.get("name")):
            self._end_reasoning(events)
            self._start(call, clean(str(name)), events)
        arguments = function.get("arguments")
        if not arguments:
            return
        if not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()
        if call.started:
            events.append(ToolCallDelta(call.index, clean(arguments)))
        else:
            call.waiting.append(clean(arguments))

    def _call_of(self, delta: dict[str, Json], named: bool) -> _Call | None:
        """The call that a delta belongs to, a new one included."""
        index, provider_id = delta.get("index"), delta.get("id") or None
        known = next((call for call in self._calls if provider_id and call.provider_id == provider_id), None)
        if known is None and isinstance(index, int):
            known = self._by_index.get(index)
            if known is not None and named and provider_id and known.provider_id:
                known = None  # one index for several calls, told apart by their ids
        elif known is None and not named and not provider_id:
            known = self._calls[-1] if self._calls else None
        if known is None and (named or provider_id or isinstance(index, int)):
            known = _Call(len(self._calls), provider_id)
            self._calls.append(known)
        if known is not None:
            known.provider_id = known.provider_id or provider_id
            if isinstance(index, int):
                self._by_index[index] = known
        return known

    def _start(self, call: _Call, name: str, events: list[ModelEvent]) -> None:
        call.started = True
        chosen = call.provider_id
        if not isinstance(chosen, str) or chosen in self._taken or len(chosen) > 128 or not chosen.isprintable():
            chosen = f"call_{uuid.uuid4().hex[:24]}"
        self._taken.add(chosen)
        events.append(ToolCallStart(call.index, chosen, name))
        events.extend(ToolCallDelta(call.index, piece) for piece in call.waiting)
        call.waiting.clear()


def _thought_in(delta: dict[str, Json], content: Json) -> str:
    """Reasoning in OpenRouter's details, or in Mistral's content list."""
    if details := delta.get("reasoning_details"):
        return "".join(_strings(details, ("text", "summary")))
    if isinstance(content, list):
        return "".join(
            text
            for part in content
            if isinstance(part, dict) and part.get("type") == "thinking"
            for text in _strings(part.get("thinking"), ("text",))
        )
    return ""


def _text_in(content: Json) -> str:
    if not isinstance(content, list):
        return ""
    return "".join(_strings([part for part in content if part.get("type") == "text"], ("text",)))


def _strings(parts: Json, names: tuple[str, ...]) -> Iterator[str]:
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict):
            yield from (value for name in names if isinstance(value := part.get(name), str))


def _usage_of(usage: dict[str, Json]) -> Usage:
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return Usage(
        input_tokens=int(usage.get("prompt_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens") or 0),
        reasoning_tokens=int(completion.get("reasoning_tokens") or 0),
        cached_tokens=int(prompt.get("cached_tokens") or 0),
    )
