"""The events of a model call. A call is a sequence of them that ends with exactly one `Finished`.

Text, reasoning and tool calls come in the order in which the model made them. The deltas of one part follow each other,
with two exceptions. The deltas of parallel tool calls may interleave; `index` tells them apart. A source may come
anywhere and does not end a part. Text in a delta is never empty and holds no NUL and no lone surrogate.

These events come from a provider. The chunks of the same names (`backend/chat/protocol/chunks.py`) go to clients.

The classes are not frozen: thousands of events are made a second, and freezing would double the cost of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from backend.chat.models import ProviderData, Usage
from backend.chat.protocol.chunks import FinishReason


@dataclass(slots=True)
class TextDelta:
    text: str


@dataclass(slots=True)
class ReasoningDelta:
    text: str


@dataclass(slots=True)
class ReasoningEnd:
    """The end of a part of reasoning. `signature` and `redacted` (Anthropic) are opaque values to store with the part.

    It may come without a delta before it: redacted reasoning has no text, and some models sign reasoning they hide.
    `provider` is what else the provider wants back with this part.
    """

    signature: str | None = None
    redacted: str | None = None
    provider: ProviderData | None = None


@dataclass(slots=True)
class Source:
    """A page that the answer cites. A page cited twice comes twice. `url` is http or https (`sources.py`)."""

    url: str
    title: str | None = None


@dataclass(slots=True)
class ToolCallStart:
    """The start of a tool call. `index` counts from 0 within a model call.

    `id` is the provider's, or a new one if that is missing, unusable or already in the prompt.
    """

    index: int
    id: str
    name: str


@dataclass(slots=True)
class ToolCallDelta:
    """A piece of the JSON text of the call's input. The whole text may be empty or invalid JSON."""

    index: int
    json_text: str


@dataclass(slots=True)
class ToolCallEnd:
    """The end of a call's input. `provider` is what the provider wants back with the call, such as its own id."""

    index: int
    provider: ProviderData | None = None


@dataclass(slots=True)
class UsageSoFar:
    """The tokens of this call as far as the provider has told. It counts if the call does not reach its end.

    A later one replaces it. It is no part of the answer, so a call may be retried after it.
    """

    usage: Usage


@dataclass(slots=True)
class Finished:
    """The end of a model call, with the token usage of this call alone.

    `stop` and `other` mean no tool calls, `tool-calls` at least one. `length` and `content-filter` may come with calls
    too; the JSON of the last one may then be cut short. `provider` is what the provider wants back with the reasoning
    of the whole response. It replaces that of the response's first `ReasoningEnd`.
    """

    reason: FinishReason
    usage: Usage
    explanation: str | None = None
    """A sentence of the provider to the user, for a refusal. Not blank."""
    refused: bool = False
    """Tells that the provider wants no more of this exchange, so later prompts leave it out."""
    provider: ProviderData | None = None


ModelEvent: TypeAlias = (
    TextDelta | ReasoningDelta | ReasoningEnd | Source | ToolCallStart | ToolCallDelta | ToolCallEnd
    | UsageSoFar | Finished
)  # fmt: skip
