"""What a provider streams. One model call is a run of these, ended by exactly one `Finished`.

Text, reasoning and tool calls come in the order in which the model made them. Of each part the deltas are neighbours,
except that the deltas of parallel tool calls may interleave: `index` tells them apart, and that a source may come
anywhere without ending a part. Text in a delta is never empty, holds no NUL and no half of a surrogate pair.

Not frozen: thousands are made a second, and freezing doubles the price of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from backend.chat.chunks import FinishReason
from backend.chat.models import Usage


@dataclass(slots=True)
class TextDelta:
    text: str


@dataclass(slots=True)
class ReasoningDelta:
    text: str


@dataclass(slots=True)
class ReasoningEnd:
    """One stretch of reasoning is over. `signature` and `redacted` (Anthropic) are opaque: keep them on the part.

    Comes also without a delta before it: a redacted stretch has no text, and some models sign without showing.
    """

    signature: str | None = None
    redacted: str | None = None


@dataclass(slots=True)
class Source:
    """A page that the answer rests on, as often as the model cites it. `url` is http or https (`sources.py`)."""

    url: str
    title: str | None = None


@dataclass(slots=True)
class ToolCallStart:
    """`index` is dense from 0 within one model call; `id` is the provider's, or one made up where it sends none."""

    index: int
    id: str
    name: str


@dataclass(slots=True)
class ToolCallDelta:
    """A piece of the JSON text of the call's input. All pieces together may be empty, or no JSON at all."""

    index: int
    json_text: str


@dataclass(slots=True)
class ToolCallEnd:
    index: int


@dataclass(slots=True)
class Finished:
    """The model's own end; the usage is that of this model call.

    `stop` and `other` come without tool calls, `tool-calls` with at least one. After `length` and `content-filter`
    there may be calls too, the last of them with its JSON cut short.
    """

    reason: FinishReason
    usage: Usage


ModelEvent: TypeAlias = (
    TextDelta | ReasoningDelta | ReasoningEnd | Source | ToolCallStart | ToolCallDelta | ToolCallEnd | Finished
)
