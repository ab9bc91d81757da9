"""How a reader gets from a dead attempt to the next: what it has open, and the chunks that bridge the takeover.

A takeover removes the dead attempt's tail and leaves a marker with that tail's events. From its cursor alone a reader
then knows what its client has open: the events at or below the cursor.
"""

from __future__ import annotations

from collections.abc import Iterable

from backend.chat.chunks import (
    Chunk,
    FinishStep,
    ReasoningEnd,
    ResetStep,
    StartStep,
    TextEnd,
    ToolInputError,
    ToolOutputError,
)
from backend.chat.markers import CLOSES, OPENS, RESET, Event, Marker
from backend.ids import StreamId

INTERRUPTED = "interrupted"


class OpenParts:
    """What a client that was sent these events has open, in the order it was opened. `step`: a step is open too."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.step = False
        self._parts: dict[tuple[str, str], tuple[str, str]] = {}
        for event in events:
            self.see(event.kind, event.part, event.tool)

    def see(self, kind: str, part_id: str | None, tool_name: str | None) -> None:
        part = (kind.partition("-")[0], part_id or "")  # a text and a tool call may have the same id
        if kind in OPENS:
            self._parts[part] = (kind, tool_name or "")
        elif kind in CLOSES:
            self._parts.pop(part, None)
        elif kind == "start-step":
            self.step = True
        elif kind == "finish-step":
            self.step = False
        elif kind == RESET:  # an earlier takeover: everything was closed, and a fresh step begun
            self._parts.clear()
            self.step = True

    def closings(self) -> list[Chunk]:
        """The chunks that close what is open; the step itself is not closed."""
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
    """What a takeover's marker is for a client that has seen `shown`; the last chunk is the new step's beginning.

    Empty when the new attempt goes on inside the step (what it repeats replaces itself) or began the stream anew.
    `reset`: the client takes `reset-step`, which takes back the parts of the step that it has begun.
    """
    if marker.mid_step or marker.anew:
        return []
    seen = [event for event in marker.events if event[:2] <= shown]
    if reset and any(event.kind in ("start-step", RESET) for event in seen):
        return [ResetStep()]
    opened = OpenParts(seen)
    return [*opened.closings(), *([FinishStep()] if opened.step else []), StartStep()]
