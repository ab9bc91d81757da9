"""The parts that a client has open, and the chunks that take it across a takeover (the bridge).

A takeover removes the tail of the dead attempt and leaves a marker with that tail's events. So the cursor alone tells
a reader what its client has open: the events at or below the cursor.
"""

from __future__ import annotations

from collections.abc import Iterable

from backend.chat.protocol.chunks import (
    Chunk,
    FinishStep,
    ReasoningEnd,
    ResetStep,
    StartStep,
    TextEnd,
    ToolInputError,
    ToolOutputError,
)
from backend.chat.streams.takeover_marker import CLOSES, OPENS, RESET, Marker, PartEvent
from backend.ids import StreamId

INTERRUPTED = "interrupted"


class OpenParts:
    """The parts that are open after some events, in the order in which they were opened.

    `step` is True if a step is open.
    """

    def __init__(self, events: Iterable[PartEvent] = ()) -> None:
        self.step = False
        self._parts: dict[tuple[str, str], tuple[str, str]] = {}
        for event in events:
            self.see(event.kind, event.part, event.tool)

    def see(self, kind: str, part_id: str | None, tool_name: str | None) -> None:
        """Takes the next event."""
        part = (kind.partition("-")[0], part_id or "")  # a text and a tool call may have the same id
        if kind in OPENS:
            self._parts[part] = (kind, tool_name or "")
        elif kind in CLOSES:
            self._parts.pop(part, None)
        elif kind == "start-step":
            self.step = True
        elif kind == "finish-step":
            self.step = False
        elif kind == RESET:  # an earlier takeover closed everything and began a new step
            self._parts.clear()
            self.step = True

    def closings(self) -> list[Chunk]:
        """Returns the chunks that close the open parts, but not the step."""
        return [_closing(kind, part_id, name) for (_, part_id), (kind, name) in self._parts.items()]


def _closing(kind: str, part_id: str, tool_name: str) -> Chunk:
    if kind == "text-start":
        return TextEnd(part_id)
    if kind == "reasoning-start":
        return ReasoningEnd(part_id)
    if kind == "tool-input-start":
        return ToolInputError(part_id, tool_name, None, INTERRUPTED)
    return ToolOutputError(part_id, INTERRUPTED)


def bridge(marker: Marker, shown: StreamId, *, reset: bool) -> list[Chunk]:
    """Returns the chunks that a client gets for a takeover's marker if it has everything up to `shown`.

    The last chunk begins the new step. Returns [] if the new attempt continues inside the step (the chunks that it
    repeats replace the old ones) or begins the message again. Set `reset` if the client accepts `reset-step`, which
    takes back the parts of the step that it has begun.
    """
    if marker.mid_step or marker.anew:
        return []
    seen = [event for event in marker.events if event[:2] <= shown]
    if reset and any(event.kind in ("start-step", RESET) for event in seen):
        return [ResetStep()]
    opened = OpenParts(seen)
    return [*opened.closings(), *([FinishStep()] if opened.step else []), StartStep()]
