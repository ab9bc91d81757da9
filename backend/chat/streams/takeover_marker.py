"""The marker of a takeover: the events that were removed from the stream.

By the marker and its cursor, a reader knows which parts its client has open.

    !marker {"checkpoint":"7001-5","dead_top":"7001-9","mid_step":false,"anew":false,"events":[[7001,6,"start-step",null,null],...]}

A takeover removes the dead attempt's entries after the checkpoint. The marker keeps the events of those entries that
open or close a part or a step. If a marker is among the removed entries, the new one keeps its events too, and then a
RESET event with that marker's id: there a new step replaced the removed one.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from backend.chat.protocol.chunks import (
    MARKER,
    REASONING_DELTA_PREFIX,
    TEXT_DELTA_PREFIX,
    TOOL_INPUT_DELTA_PREFIX,
    ascii_json,
)
from backend.chat.streams.streams import Entry
from backend.ids import BEGINNING, StreamId

RESET = "reset"
OPENS = frozenset({"text-start", "reasoning-start", "tool-input-start", "tool-input-available"})
CLOSES = frozenset({"text-end", "reasoning-end", "tool-input-error", "tool-output-available", "tool-output-error"})
_STEPS = frozenset({"start-step", "finish-step"})
_KEPT = OPENS | CLOSES | _STEPS
_SILENT = (TEXT_DELTA_PREFIX, REASONING_DELTA_PREFIX, TOOL_INPUT_DELTA_PREFIX)


class PartEvent(NamedTuple):
    """An entry that opens or closes a part or a step. `kind` is the chunk's type, or RESET."""

    fence: int
    seq: int
    kind: str
    part: str | None
    tool: str | None


@dataclass(frozen=True, slots=True)
class Marker:
    """A takeover: the entries with checkpoint < id <= dead_top are removed, or will be soon.

    `mid_step` is True if the checkpoint lies inside a step. The removed tool outputs are then sent again in the same
    step, so readers show nothing for the marker, and it has no events. Otherwise the marker takes the place of the new
    step's `start-step`. `anew` is True if the stream before the marker was lost or cannot be trusted. The message then
    begins again after the marker, and a reader that has shown some of it cannot continue.
    """

    checkpoint: StreamId
    dead_top: StreamId
    mid_step: bool
    events: tuple[PartEvent, ...]
    anew: bool = False

    def encode(self) -> bytes:
        document = {
            "checkpoint": str(self.checkpoint),
            "dead_top": str(self.dead_top),
            "mid_step": self.mid_step,
            "anew": self.anew,
            "events": [tuple(event) for event in self.events],
        }
        return MARKER + ascii_json(document)

    @classmethod
    def find(cls, body: bytes) -> Marker | None:
        """Returns the marker in an entry's body, or None if the entry is something else."""
        return cls.parse(body) if body.startswith(MARKER) else None

    @classmethod
    def parse(cls, body: bytes) -> Marker:
        """Reads a marker, and ignores unknown members. Raises ValueError unless `body` is a marker."""
        if not body.startswith(MARKER):
            raise ValueError("not a marker")
        document = orjson.loads(body[len(MARKER) :])
        return cls(
            StreamId.parse(document["checkpoint"]),
            StreamId.parse(document["dead_top"]),
            document["mid_step"],
            tuple(PartEvent(*event) for event in document["events"]),
            document["anew"],
        )


ANEW = Marker(BEGINNING, BEGINNING, mid_step=False, events=(), anew=True)


class Journal:
    """The events of a range of a stream, collected page by page.

    An event that comes twice (in an entry, and in the marker that removes the entry) counts once.
    """

    def __init__(self) -> None:
        self._events: dict[tuple[int, int], PartEvent] = {}

    def read(self, entries: Iterable[Entry]) -> None:
        """Adds the events of the next page."""
        for entry, body in entries:
            if (marker := Marker.find(body)) is not None:
                self._read_marker(entry, marker)
            elif not body.startswith((b"!", *_SILENT)):
                chunk = orjson.loads(body)
                if (kind := chunk["type"]) in _KEPT:
                    part = chunk.get("id") or chunk.get("toolCallId")
                    self._events[entry] = PartEvent(*entry, kind, part, chunk.get("toolName"))

    def _read_marker(self, entry: StreamId, marker: Marker) -> None:
        if marker.anew:
            self._events.clear()
            return
        for event in marker.events:
            self._events[event.fence, event.seq] = event
        if not marker.mid_step:
            self._events[entry] = PartEvent(*entry, RESET, None, None)

    def events(self) -> tuple[PartEvent, ...]:
        """Returns the events in the order of their ids."""
        return tuple(self._events[entry] for entry in sorted(self._events))
