"""One model response as it grows: events of the provider in, chunks out, and at the end the message to store."""

from __future__ import annotations

from collections.abc import Sequence

from backend.chat.chunks import (
    Chunk,
    FinishReason,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    SourceUrl,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputError,
)
from backend.chat.models import (
    Json,
    NewMessage,
    Part,
    ReasoningPart,
    Role,
    SourcePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from backend.chat.outputs import UNREADABLE_INPUT, safe_json
from executor.llm import events
from executor.llm.arguments import parse_arguments

MAX_SOURCES = 50


class _OpenCall:
    """A tool call whose input is still on its way."""

    def __init__(self, tool_call_id: str, tool_name: str, place: int) -> None:
        self.tool_call_id = tool_call_id
        self.tool_name = tool_name
        self.place = place
        self.pieces: list[str] = []

    def input(self) -> Json:
        """An object, or the raw text when it is none."""
        return safe_json(parse_arguments("".join(self.pieces)))


class Response:
    """Feed it events by `take`. Part ids hold `label`, which must differ for every response of a stream.

    `cited` are the URLs that the answer names already; those of this response are added.
    """

    def __init__(self, label: str, cited: set[str]) -> None:
        self._label = label
        self._cited = cited
        self._sources: list[events.Source] = []
        self._parts: list[Part] = []
        self._text: list[str] | None = None
        self._reasoning: list[str] | None = None
        self._open_id = ""
        self._calls: dict[int, _OpenCall] = {}
        self.reason: FinishReason | None = None
        self.usage = Usage()

    @property
    def calls(self) -> list[ToolCallPart]:
        return [part for part in self._parts if isinstance(part, ToolCallPart)]

    def message(self) -> NewMessage | None:
        """What was said so far, once no part is open; None when there is nothing."""
        return NewMessage(Role.ASSISTANT, tuple(self._parts)) if self._parts else None

    def take(self, event: events.ModelEvent) -> Sequence[Chunk]:
        """The chunks that this event becomes."""
        match event:
            case events.TextDelta(text):
                if self._text is not None:
                    self._text.append(text)
                    return (TextDelta(self._open_id, text),)
                closing = self._close_words()
                self._text, self._open_id = [text], self._next_id("t")
                return (*closing, TextStart(self._open_id), TextDelta(self._open_id, text))
            case events.ReasoningDelta(text):
                if self._reasoning is not None:
                    self._reasoning.append(text)
                    return (ReasoningDelta(self._open_id, text),)
                closing = self._close_words()
                self._reasoning, self._open_id = [text], self._next_id("r")
                return (*closing, ReasoningStart(self._open_id), ReasoningDelta(self._open_id, text))
            case events.ReasoningEnd(signature, redacted):
                return self._end_reasoning(signature, redacted)
            case events.ToolCallStart(index, _, name):
                closing = self._close_words()
                place = len(self._parts)
                call = _OpenCall(f"call_{self._label}_{index}", name, place)
                self._calls[index] = call
                self._parts.append(ToolCallPart(call.tool_call_id, name, ""))  # keeps its place among the parts
                return (*closing, ToolInputStart(call.tool_call_id, name))
            case events.ToolCallDelta(index, json_text):
                call = self._calls[index]
                call.pieces.append(json_text)
                return (ToolInputDelta(call.tool_call_id, json_text),)
            case events.ToolCallEnd(index):
                return (self._end_call(self._calls.pop(index), UNREADABLE_INPUT),)
            case events.Source(url):
                if url not in self._cited and len(self._cited) < MAX_SOURCES:
                    self._cited.add(url)
                    self._sources.append(event)
                return ()
            case events.Finished(reason, usage):
                self.reason, self.usage = reason, usage
                return (*self._close_words(), *self._close_calls(UNREADABLE_INPUT), *self._name_sources())

    def interrupt(self, why: str) -> tuple[list[Chunk], list[NewMessage]]:
        """Ends it here: chunks that close what is open, and the messages that keep what was said.

        Calls get a result that says `why`, since none of them has run.
        """
        closing = [*self._close_words(), *self._close_calls(why), *self._name_sources()]
        closing += [ToolOutputError(call.tool_call_id, why) for call in self.calls if call.readable]
        said = self.message()
        return closing, [said, *unanswered(self.calls, why)] if said is not None else []

    def _next_id(self, kind: str) -> str:
        return f"{kind}{self._label}-{len(self._parts)}"

    def _close_words(self) -> Sequence[Chunk]:
        if self._text is not None:
            self._parts.append(TextPart("".join(self._text)))
            self._text = None
            return (TextEnd(self._open_id),)
        return self._end_reasoning(None, None) if self._reasoning is not None else ()

    def _end_reasoning(self, signature: str | None, redacted: str | None) -> Sequence[Chunk]:
        closing = self._close_words() if self._text is not None else ()
        text = "".join(self._reasoning) if self._reasoning is not None else ""
        shown = self._reasoning is not None
        self._reasoning = None
        if text or signature is not None or redacted is not None:
            self._parts.append(ReasoningPart(text, signature, redacted))
        return (*closing, ReasoningEnd(self._open_id)) if shown else closing

    def _close_calls(self, why: str) -> list[Chunk]:
        open_calls, self._calls = self._calls, {}
        return [self._end_call(call, why) for call in open_calls.values()]

    def _name_sources(self) -> list[Chunk]:
        """When all is said: one that was named at once would cut the text in two."""
        named: list[Chunk] = []
        for source in self._sources:
            part = SourcePart(self._next_id("s"), source.url, source.title)
            self._parts.append(part)
            named.append(SourceUrl(part.source_id, part.url, part.title))
        self._sources.clear()
        return named

    def _end_call(self, call: _OpenCall, why: str) -> Chunk:
        part = ToolCallPart(call.tool_call_id, call.tool_name, call.input())
        self._parts[call.place] = part
        if part.readable:
            return ToolInputAvailable(part.tool_call_id, part.tool_name, part.input)
        return ToolInputError(part.tool_call_id, part.tool_name, part.input, why)


def unanswered(calls: Sequence[ToolCallPart], why: str) -> list[NewMessage]:
    """Tool messages for calls that have no result and will get none."""
    output = {"type": "error", "message": why, "error": "interrupted"}
    return [
        NewMessage(Role.TOOL, (ToolResultPart(call.tool_call_id, call.tool_name, output, is_error=True),))
        for call in calls
    ]
