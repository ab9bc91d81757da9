"""A decoder that turns the stream of an OpenAI-compatible server into events.

Source: OpenAI's chat completion chunk, and the additions of other servers. Servers differ:

- Reasoning comes as `reasoning_content`, `reasoning` or `reasoning_details`.
- Reasoning may stand in the content, between tags (`think_tags.py`).
- Tool call deltas may have no index or no id, one index for several calls, or one id for several calls.
- Errors may come inside the stream.
- The usage comes with the last chunk, in a separate chunk without choices, in the choice (Kimi) or in `x_groq`.
- Citations come in any delta, in a whole message with the finish reason, or beside the choices (Perplexity, xAI).
- A whole message may come in one event, or as the whole body.
- No finish reason may come before `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend.chat.models import Json, Usage
from backend.chat.protocol.chunks import FinishReason
from executor.llm.clean_text import PiecewiseCleaner
from executor.llm.delta_template import DeltaTemplate
from executor.llm.events import (
    Finished,
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    TextDelta,
    UsageSoFar,
)
from executor.llm.failures import ModelCallError, of_error
from executor.llm.openai_calls import ToolCalls, number_of
from executor.llm.provider_data import Collector
from executor.llm.sources import cited_pages, pages_beside
from executor.llm.sse import read_json
from executor.llm.think_tags import ThinkTags
from executor.llm.token_counts import openai_usage

_REASONS: dict[str, FinishReason] = {
    "stop": "stop", "length": "length", "content_filter": "content-filter", "tool_calls": "tool-calls",
    "function_call": "tool-calls", "eos": "stop", "end_turn": "stop", "stop_sequence": "stop",
    "max_tokens": "length", "model_length": "length", "refusal": "content-filter", "safety": "content-filter",
    "recitation": "content-filter", "prohibited_content": "content-filter", "sensitive": "content-filter",
}  # fmt: skip


_FAILURES = {"error": "provider_error", "network_error": "provider_error", "insufficient_system_resource": "overloaded"}
"""Reasons that are failures of the server. The last one is DeepSeek's."""


_WITH_TEXT = frozenset({"role", "content"})
_BESIDE_TEXT = frozenset({"citations", "search_results"})


class OpenAIDecoder:
    """A `retrying.Decoder`.

    `taken` holds the tool call ids of the prompt. A call that arrives with one of them gets a new id. `owner` names the
    model, to which alone the data in `provider` of its events goes back.
    """

    def __init__(self, taken: set[str], owner: str = "") -> None:
        self.done = False
        self._wanted_back = Collector(owner)
        self._text = PiecewiseCleaner()
        self._reasoning = PiecewiseCleaner()
        self._thinks = False
        self._tags: ThinkTags | None = ThinkTags()
        self._opening = ""
        self._said = False
        self._refused = False
        self._pages: Json = None
        self._template = DeltaTemplate(_only_text)
        self._calls = ToolCalls(taken, self._end_words, self._wanted_back)
        self._reason: str | None = None
        self._usage = Usage()

    @property
    def reason_known(self) -> bool:
        return self._reason is not None

    def feed(self, payload: bytes) -> list[ModelEvent]:
        if self._is_plain and (text := self._template.text_of(payload)) is not None:
            return [TextDelta(text)]
        if payload.strip() == b"[DONE]":
            self.done = True
            return []
        events = self._read(read_json(payload))
        self._template.learn(payload, events)
        return events

    @property
    def _is_plain(self) -> bool:
        """Returns True if text is passed on as it comes: nothing is held back, and no reasoning or tag is open."""
        return (self._tags is None or self._tags.plain) and not self._thinks and not self._text.holds

    def whole(self, document: Json) -> list[ModelEvent]:
        """Reads an answer that is one document: a completion, or an error."""
        if not isinstance(document, dict) or not isinstance(document.get("choices"), list):
            raise of_error(document)
        events = self._read(document)
        self._reason = self._reason or ("stop" if document["choices"] else None)
        return events

    def _read(self, chunk: Json) -> list[ModelEvent]:
        if (error := _error_in(chunk)) is not None:
            raise of_error(error)
        if not isinstance(chunk, dict):
            return []
        events: list[ModelEvent] = []
        self._count(chunk.get("usage"), events)
        if isinstance(groq := chunk.get("x_groq"), dict):
            self._count(groq.get("usage"), events)
        for choice in chunk.get("choices") or ():
            if isinstance(choice, dict) and not number_of(choice.get("index")):
                self._read_choice(choice, events)
        if "citations" in chunk or "search_results" in chunk:
            self._cite_beside(chunk, events)
        return events

    def _read_choice(self, choice: dict[str, Json], events: list[ModelEvent]) -> None:
        self._count(choice.get("usage"), events)
        reason = choice.get("finish_reason")
        if delta := choice.get("delta"):
            self._read_delta(delta, events)
        message = choice.get("message")
        if isinstance(message, dict) and (reason or "delta" not in choice):
            if self._said:  # some servers repeat the answer at its end
                events.extend(cited_pages(message.get("annotations")))
            else:
                self._read_delta(message, events)
        if reason:
            self._reason = str(reason)

    def _count(self, usage: Json, events: list[ModelEvent]) -> None:
        if isinstance(usage, dict) and (counted := openai_usage(usage)) != self._usage:
            self._usage = counted
            events.append(UsageSoFar(counted))

    def _cite_beside(self, found: dict[str, Json], events: list[ModelEvent]) -> None:
        """Names pages that are listed beside the text. Some servers repeat the list in each chunk."""
        lists = [found.get(name) for name in ("search_results", "citations", "citation")]
        if lists != self._pages:
            self._pages = lists
            events.extend(pages_beside(lists))

    def end(self) -> list[ModelEvent]:
        if self._reason is None and not (self.done and self._said):
            raise ModelCallError("provider_incomplete", again=True, note="no finish_reason")
        self._reason = self._reason or "unknown"
        if failure := _FAILURES.get(self._reason.lower()):
            raise ModelCallError(failure, again=True, note=f"finish_reason={self._reason}")
        events: list[ModelEvent] = []
        self._say(self._text.end(), events)
        self._end_words(events)
        self._calls.end(events)
        reason = _REASONS.get(self._reason.lower(), "other")
        if self._calls and reason in ("stop", "other"):
            reason = "tool-calls"
        elif not self._calls and reason == "tool-calls":
            reason = "stop"
        if self._refused and reason in ("stop", "other"):
            reason = "content-filter"
        events.append(Finished(reason, self._usage, provider=self._wanted_back.of_response()))
        return events

    def _read_delta(self, delta: dict[str, Json], events: list[ModelEvent]) -> None:
        self._wanted_back.read(delta)
        content = delta.get("content")
        thought = delta.get("reasoning_content") or delta.get("reasoning") or _thought_in(delta, content)
        if thought and isinstance(thought, str) and (thought := self._reasoning.mend(thought)):
            self._end_tags(events)
            self._think(thought, events)
        text = content if isinstance(content, str) else _text_in(content)
        if not text and isinstance(refusal := delta.get("refusal"), str) and refusal:
            text, self._refused = refusal, True
        if text:
            self._say(self._text.mend(text), events)
        if calls := delta.get("tool_calls"):
            for call in calls:
                if isinstance(call, dict):
                    self._said = True
                    self._calls.read(call, events)
        elif isinstance(legacy := delta.get("function_call"), dict):
            self._said = True
            self._calls.read({"index": 0, "function": legacy}, events)
        if annotations := delta.get("annotations"):
            events.extend(cited_pages(annotations))
        for name in ("provider_specific_fields", "context"):  # LiteLLM, Azure
            if isinstance(more := delta.get(name), dict):
                self._cite_beside(more, events)

    def _say(self, text: str, events: list[ModelEvent]) -> None:
        """Adds text of the content, in which reasoning may stand between tags."""
        if not text:
            return
        self._said = True
        for is_thought, piece in ((False, text),) if self._tags is None else self._tags.feed(text):
            self._opening = self._tags.opening if self._tags is not None else self._opening
            self._take_piece(is_thought, piece, events)

    def _take_piece(self, is_thought: bool, piece: str, events: list[ModelEvent]) -> None:
        if is_thought:
            self._wanted_back.found_tag(self._opening)
            self._think(piece, events)
        else:
            self._end_reasoning(events)
            events.append(TextDelta(piece))

    def _think(self, thought: str, events: list[ModelEvent]) -> None:
        self._said = self._thinks = True
        events.append(ReasoningDelta(thought))

    def _end_words(self, events: list[ModelEvent]) -> None:
        self._end_tags(events)
        self._end_reasoning(events)

    def _end_tags(self, events: list[ModelEvent]) -> None:
        """Releases what was held back as the beginning of a tag. From now on, tags are text."""
        tags, self._tags = self._tags, None
        for is_thought, piece in tags.end() if tags is not None else ():
            self._take_piece(is_thought, piece, events)

    def _end_reasoning(self, events: list[ModelEvent]) -> None:
        if not self._thinks:
            return
        self._thinks = False
        if rest := self._reasoning.end():
            events.append(ReasoningDelta(rest))
        events.append(ReasoningEnd(provider=self._wanted_back.of_reasoning()))


def _only_text(chunk: Any) -> str | None:
    """Returns the text of a chunk whose one choice has text and nothing else. See `DeltaTemplate`."""
    (choice,) = chunk["choices"]
    delta = choice["delta"]
    if delta.get("role", "assistant") != "assistant" or any(delta[name] for name in delta.keys() - _WITH_TEXT):
        return None
    if any(choice[name] for name in choice.keys() - {"index", "delta"}) or number_of(choice.get("index")):
        return None
    if any(isinstance(place.get("usage"), dict) for place in (chunk, choice, chunk.get("x_groq") or {})):
        return None  # a count replaces the one before, even if the same count came earlier
    text: str | None = delta["content"]
    return text if _error_in(chunk) is None and not chunk.keys() & _BESIDE_TEXT else None


def _thought_in(delta: dict[str, Json], content: Json) -> str:
    """Returns the reasoning in OpenRouter's `reasoning_details` or in Mistral's list of contents."""
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
    texts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(_strings(texts, ("text",)))


def _strings(parts: Json, names: tuple[str, ...]) -> Iterator[str]:
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict):
            yield from (value for name in names if isinstance(value := part.get(name), str))


def _error_in(chunk: Json) -> Json:
    """Returns the error that a chunk is or holds: under `error`, or an object of vLLM, Mistral or FastAPI itself."""
    if isinstance(chunk, list):  # Gemini
        return _error_in(chunk[0]) if chunk and isinstance(chunk[0], dict) else None
    if not isinstance(chunk, dict):
        return None
    if error := chunk.get("error"):
        return error
    if isinstance(groq := chunk.get("x_groq"), dict) and groq.get("error"):
        return groq["error"]
    plain = chunk.get("object") == "error" or ("choices" not in chunk and (chunk.get("detail") or chunk.get("message")))
    return chunk if plain else None
