"""One model response while it arrives: turns the provider's events into chunks, and into the message to store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from backend.chat.models import (
    AnswerEnd,
    DataPart,
    Json,
    NewMessage,
    Part,
    ProviderData,
    ReasoningPart,
    Role,
    SourcePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from backend.chat.protocol.chunks import (
    Chunk,
    Data,
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
from backend.chat.protocol.tool_outputs import UNREADABLE_INPUT, safe_json
from executor.llm import events
from executor.llm.arguments import parse_arguments

MAX_SOURCES = 50


class _OpenCall:
    """A tool call whose input is still arriving."""

    def __init__(self, tool_call_id: str, tool_name: str, place: int) -> None:
        self.tool_call_id = tool_call_id
        self.tool_name = tool_name
        self.place = place
        self.pieces: list[str] = []

    def input(self) -> Json:
        """Returns the input as an object, or as the raw text if it is not one."""
        return safe_json(parse_arguments("".join(self.pieces)))


class Response:
    """One response of the model. Part ids contain `label`, which must differ for every response of a stream.

    `cited` holds the URLs that the answer names already; those of this response are added to it. `notice` becomes its
    first part as soon as the model answers. `read` are pages that tools have read before; they are its first sources.
    """

    def __init__(
        self, label: str, cited: set[str], notice: DataPart | None = None, read: Iterable[events.Source] = ()
    ) -> None:
        self._label = label
        self._notice = notice
        self._cited = cited
        self._read = tuple(read)
        self._sources: list[events.Source] = []
        self._parts: list[Part] = []
        self._text: list[str] | None = None
        self._reasoning: list[str] | None = None
        self._open_id = ""
        self._calls: dict[int, _OpenCall] = {}
        self.end: AnswerEnd | None = None
        self.usage = Usage()
        self.begun = False
        """True after the first event that is part of the answer."""

    @property
    def calls(self) -> list[ToolCallPart]:
        return [part for part in self._parts if isinstance(part, ToolCallPart)]

    def message(self) -> NewMessage | None:
        """Returns the message to store, or None if the response is empty. Call it only when no part is open."""
        return NewMessage(Role.ASSISTANT, tuple(self._parts)) if self._parts else None

    def take(self, event: events.ModelEvent) -> Sequence[Chunk]:
        """Adds an event to the response. Returns the chunks to send for it."""
        if self._text is not None and type(event) is events.TextDelta:  # nearly all events
            self._text.append(event.text)
            return (TextDelta(self._open_id, event.text),)
        self.begun = self.begun or not isinstance(event, events.UsageSoFar)
        if self._read and self.begun and not isinstance(event, events.Finished):  # an empty answer names none
            for source in self._read:
                self._cite(source)
            self._read = ()
        if self._notice is None or not self.begun:
            return self._take(event)
        notice, self._notice = self._notice, None
        self._parts.append(notice)
        return (Data(notice.name, notice.data, notice.id), *self._take(event))

    def _take(self, event: events.ModelEvent) -> Sequence[Chunk]:
        match event:
            case events.TextDelta(text):
                closing = self._close_text()
                self._text, self._open_id = [text], self._next_id("t")
                return (*closing, TextStart(self._open_id), TextDelta(self._open_id, text))
            case events.ReasoningDelta(text):
                if self._reasoning is not None:
                    self._reasoning.append(text)
                    return (ReasoningDelta(self._open_id, text),)
                closing = self._close_text()
                self._reasoning, self._open_id = [text], self._next_id("r")
                return (*closing, ReasoningStart(self._open_id), ReasoningDelta(self._open_id, text))
            case events.ReasoningEnd(signature, redacted, provider):
                return self._end_reasoning(signature, redacted, provider)
            case events.ToolCallStart(index, _, name):
                closing = self._close_text()
                place = len(self._parts)
                call = _OpenCall(f"call_{self._label}_{index}", name, place)
                self._calls[index] = call
                self._parts.append(ToolCallPart(call.tool_call_id, name, ""))  # replaced by the whole call when it ends
                return (*closing, ToolInputStart(call.tool_call_id, name))
            case events.ToolCallDelta(index, json_text):
                call = self._calls[index]
                call.pieces.append(json_text)
                return (ToolInputDelta(call.tool_call_id, json_text),)
            case events.ToolCallEnd(index, provider):
                return (self._end_call(self._calls.pop(index), UNREADABLE_INPUT, provider),)
            case events.Source():
                self._cite(event)
                return ()
            case events.UsageSoFar(usage):
                self.usage = usage
                return ()
            case events.Finished(reason, usage):
                self.end = AnswerEnd(reason, event.explanation, event.refused)
                self.usage = usage
                closing = self._close_text()
                self._keep(event.provider)
                return (*closing, *self._close_calls(UNREADABLE_INPUT), *self._name_sources())

    def interrupt(self, why: str) -> tuple[list[Chunk], list[NewMessage]]:
        """Ends the response early. Returns chunks that close its open parts, and the messages to store.

        None of its calls has run, so each gets a result with `why` as its error.
        """
        closing = [*self._close_text(), *self._close_calls(why), *self._name_sources()]
        closing += [ToolOutputError(call.tool_call_id, why) for call in self.calls if call.readable]
        message = self.message()
        return closing, [message, *unanswered(self.calls, why)] if message is not None else []

    def _cite(self, source: events.Source) -> None:
        if source.url not in self._cited and len(self._cited) < MAX_SOURCES:
            self._cited.add(source.url)
            self._sources.append(source)

    def _next_id(self, kind: str) -> str:
        return f"{kind}{self._label}-{len(self._parts)}"

    def _close_text(self) -> Sequence[Chunk]:
        if self._text is not None:
            self._parts.append(TextPart("".join(self._text)))
            self._text = None
            return (TextEnd(self._open_id),)
        return self._end_reasoning(None, None, None) if self._reasoning is not None else ()

    def _end_reasoning(
        self, signature: str | None, redacted: str | None, provider: ProviderData | None
    ) -> Sequence[Chunk]:
        closing = self._close_text() if self._text is not None else ()
        text = "".join(self._reasoning) if self._reasoning is not None else ""
        shown = self._reasoning is not None
        self._reasoning = None
        if text or signature is not None or redacted is not None or provider is not None:
            self._parts.append(ReasoningPart(text, signature, redacted, provider))
        return (*closing, ReasoningEnd(self._open_id)) if shown else closing

    def _keep(self, provider: ProviderData | None) -> None:
        """Stores what the provider wants back with the whole response: in its first part of reasoning, or a new one."""
        if provider is None:
            return
        for place, part in enumerate(self._parts):
            if isinstance(part, ReasoningPart):
                self._parts[place] = replace(part, provider=provider)
                return
        self._parts.append(ReasoningPart("", provider=provider))

    def _close_calls(self, why: str) -> list[Chunk]:
        open_calls, self._calls = self._calls, {}
        return [self._end_call(call, why) for call in open_calls.values()]

    def _name_sources(self) -> list[Chunk]:
        """Adds the sources at the end of the response; a source in the middle would cut the text in two."""
        named: list[Chunk] = []
        for source in self._sources:
            part = SourcePart(self._next_id("s"), source.url, source.title)
            self._parts.append(part)
            named.append(SourceUrl(part.source_id, part.url, part.title))
        self._sources.clear()
        return named

    def _end_call(self, call: _OpenCall, why: str, provider: ProviderData | None = None) -> Chunk:
        part = ToolCallPart(call.tool_call_id, call.tool_name, call.input(), provider)
        self._parts[call.place] = part
        if part.readable:
            return ToolInputAvailable(part.tool_call_id, part.tool_name, part.input)
        return ToolInputError(part.tool_call_id, part.tool_name, part.input, why)


def unanswered(calls: Sequence[ToolCallPart], why: str) -> list[NewMessage]:
    """Returns tool messages for calls that have no result and will not get one."""
    output = {"type": "error", "message": why, "error": "interrupted"}
    return [
        NewMessage(Role.TOOL, (ToolResultPart(call.tool_call_id, call.tool_name, output, is_error=True),))
        for call in calls
    ]
