"""Chunks of the AI SDK UI message stream v1, for every client from ai 5.0.200 on, and the control entries of a stream.

A chunk is one immutable protocol event, and `encode` makes its bytes, once. The shapes come from the SDK's own
`uiMessageChunkSchema` (vercel/ai, packages/ai/src/ui-message-stream/ui-message-chunks.ts). Two facts rule the encoding:
- Old clients refuse keys that are not in their schema.
- A line separator inside a JSON string splits an SSE event in some clients. So the bytes are pure ASCII.

A control entry begins with `!` and is never sent to a client. FENCE opens an attempt, a MARKER (`takeover_marker.py`)
lists the events that a takeover removed, END closes the stream.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import orjson

from backend.chat.models import FinishReason as FinishReason
from backend.chat.models import Json

FENCE = b"!fence"
MARKER = b"!marker "
END = b"!end"
TEXT_DELTA_PREFIX = b'{"type":"text-delta"'
REASONING_DELTA_PREFIX = b'{"type":"reasoning-delta"'
TOOL_INPUT_DELTA_PREFIX = b'{"type":"tool-input-delta"'
MAX_OUTPUT_CHARS = 100_000
"""Characters of a tool output's JSON that clients and the model get; the stored row has all of it."""


@dataclass(frozen=True, slots=True)
class Start:
    type: ClassVar[str] = "start"
    message_id: str
    metadata: dict[str, Json] | None = None

    def fields(self) -> dict[str, Json]:
        return {"messageId": self.message_id, "messageMetadata": self.metadata}


@dataclass(frozen=True, slots=True)
class StartStep:
    type: ClassVar[str] = "start-step"

    def fields(self) -> dict[str, Json]:
        return {}


@dataclass(frozen=True, slots=True)
class FinishStep:
    type: ClassVar[str] = "finish-step"

    def fields(self) -> dict[str, Json]:
        return {}


@dataclass(frozen=True, slots=True)
class ResetStep:
    """Takes back the parts of the current step. Only for clients that accept it (AI SDK 7.0.70 and newer)."""

    type: ClassVar[str] = "reset-step"

    def fields(self) -> dict[str, Json]:
        return {}


@dataclass(frozen=True, slots=True)
class TextStart:
    type: ClassVar[str] = "text-start"
    id: str

    def fields(self) -> dict[str, Json]:
        return {"id": self.id}


@dataclass(frozen=True, slots=True)
class TextDelta:
    type: ClassVar[str] = "text-delta"
    id: str
    delta: str

    def fields(self) -> dict[str, Json]:
        return {"id": self.id, "delta": self.delta}


@dataclass(frozen=True, slots=True)
class TextEnd:
    type: ClassVar[str] = "text-end"
    id: str

    def fields(self) -> dict[str, Json]:
        return {"id": self.id}


@dataclass(frozen=True, slots=True)
class ReasoningStart:
    type: ClassVar[str] = "reasoning-start"
    id: str

    def fields(self) -> dict[str, Json]:
        return {"id": self.id}


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    type: ClassVar[str] = "reasoning-delta"
    id: str
    delta: str

    def fields(self) -> dict[str, Json]:
        return {"id": self.id, "delta": self.delta}


@dataclass(frozen=True, slots=True)
class ReasoningEnd:
    type: ClassVar[str] = "reasoning-end"
    id: str

    def fields(self) -> dict[str, Json]:
        return {"id": self.id}


_BY_SERVER = {"providerExecuted": True, "dynamic": True}
"""Keys on every chunk of a call. AI SDK 5 clients fail if only some chunks of a call have them."""


@dataclass(frozen=True, slots=True)
class ToolInputStart:
    type: ClassVar[str] = "tool-input-start"
    tool_call_id: str
    tool_name: str

    def fields(self) -> dict[str, Json]:
        return {"toolCallId": self.tool_call_id, "toolName": self.tool_name, **_BY_SERVER}


@dataclass(frozen=True, slots=True)
class ToolInputDelta:
    type: ClassVar[str] = "tool-input-delta"
    tool_call_id: str
    delta: str

    def fields(self) -> dict[str, Json]:
        return {"toolCallId": self.tool_call_id, "inputTextDelta": self.delta}


@dataclass(frozen=True, slots=True)
class ToolInputAvailable:
    type: ClassVar[str] = "tool-input-available"
    tool_call_id: str
    tool_name: str
    input: Json

    def fields(self) -> dict[str, Json]:
        return {"toolCallId": self.tool_call_id, "toolName": self.tool_name, "input": self.input, **_BY_SERVER}


@dataclass(frozen=True, slots=True)
class ToolInputError:
    type: ClassVar[str] = "tool-input-error"
    tool_call_id: str
    tool_name: str
    input: Json
    error_text: str

    def fields(self) -> dict[str, Json]:
        call = {"toolCallId": self.tool_call_id, "toolName": self.tool_name, "input": self.input}
        return {**call, "errorText": self.error_text, **_BY_SERVER}


@dataclass(frozen=True, slots=True)
class ToolOutputAvailable:
    type: ClassVar[str] = "tool-output-available"
    tool_call_id: str
    output: Json

    def fields(self) -> dict[str, Json]:
        return {"toolCallId": self.tool_call_id, "output": self.output, **_BY_SERVER}


@dataclass(frozen=True, slots=True)
class ToolOutputError:
    type: ClassVar[str] = "tool-output-error"
    tool_call_id: str
    error_text: str

    def fields(self) -> dict[str, Json]:
        return {"toolCallId": self.tool_call_id, "errorText": self.error_text, **_BY_SERVER}


@dataclass(frozen=True, slots=True)
class SourceUrl:
    type: ClassVar[str] = "source-url"
    source_id: str
    url: str
    title: str | None = None

    def fields(self) -> dict[str, Json]:
        return {"sourceId": self.source_id, "url": self.url, "title": self.title}


@dataclass(frozen=True, slots=True)
class Data:
    """A chunk of type `data-<name>`. A later one with the same id replaces it. If `transient`, it enters no message."""

    name: str
    data: Json
    id: str | None = None
    transient: bool = False

    @property
    def type(self) -> str:
        return f"data-{self.name}"

    def fields(self) -> dict[str, Json]:
        return {"id": self.id, "data": self.data, "transient": self.transient or None}


@dataclass(frozen=True, slots=True)
class MessageMetadata:
    type: ClassVar[str] = "message-metadata"
    metadata: dict[str, Json]

    def fields(self) -> dict[str, Json]:
        return {"messageMetadata": self.metadata}


@dataclass(frozen=True, slots=True)
class ErrorChunk:
    type: ClassVar[str] = "error"
    error_text: str

    def fields(self) -> dict[str, Json]:
        return {"errorText": self.error_text}


@dataclass(frozen=True, slots=True)
class Abort:
    type: ClassVar[str] = "abort"

    def fields(self) -> dict[str, Json]:
        return {}


@dataclass(frozen=True, slots=True)
class Finish:
    type: ClassVar[str] = "finish"
    reason: FinishReason
    metadata: dict[str, Json]

    def fields(self) -> dict[str, Json]:
        return {"finishReason": self.reason, "messageMetadata": self.metadata}


Chunk: TypeAlias = (
    Start | StartStep | FinishStep | ResetStep | TextStart | TextDelta | TextEnd
    | ReasoningStart | ReasoningDelta | ReasoningEnd
    | ToolInputStart | ToolInputDelta | ToolInputAvailable | ToolInputError | ToolOutputAvailable | ToolOutputError
    | SourceUrl | Data | MessageMetadata | ErrorChunk | Abort | Finish
)  # fmt: skip

_NULL_ALLOWED = ("input", "output", "data")


def encode(chunk: Chunk) -> bytes:
    """Returns compact ASCII JSON without nulls, except for a tool's input or output and a data part's data."""
    document = {"type": chunk.type}
    document.update((k, v) for k, v in chunk.fields().items() if v is not None or k in _NULL_ALLOWED)
    return ascii_json(document)


def ascii_json(value: Any) -> bytes:
    """Returns compact JSON in ASCII. NaN and Infinity become null, because JSON cannot express them."""
    try:
        plain = orjson.dumps(value)
    except TypeError:  # integers over 64 bits, lone surrogates
        return _escaped(json.loads(json.dumps(value), parse_constant=lambda _: None))
    # DEL is ASCII, but only one of the two encoders escapes it; for equal bytes it is always escaped
    return plain if plain.isascii() and b"\x7f" not in plain else _escaped(orjson.loads(plain))


def _escaped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
