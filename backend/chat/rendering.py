"""What one client gets for the entries of a stream, from its cursor on. No I/O.

Every entry is taken exactly once and in order: a hole that no takeover explains raises StreamCut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backend.chat.bridges import bridge
from backend.chat.chunks import END, encode
from backend.chat.compacting import framed
from backend.chat.frames import frame
from backend.chat.markers import Marker
from backend.chat.rings import Batch
from backend.chat.streams import Entry
from backend.errors import StreamCut
from backend.ids import BEGINNING, StreamId

CLOSING_BITS = 40
"""A cursor inside a takeover's bridge: `<fence>-<seq | bridge chunks that were sent << 40>` of the last entry seen."""


def split_cursor(cursor: StreamId) -> tuple[StreamId, int]:
    """The last entry that the client has seen, and how many chunks of a takeover's bridge it has beyond that."""
    return StreamId(cursor.fence, cursor.seq & ((1 << CLOSING_BITS) - 1)), cursor.seq >> CLOSING_BITS


class Rendering:
    """One client's progress. `position` is the last entry taken, `shown` the last one that its client has."""

    __slots__ = ("_left", "_reset", "bridged", "ended", "position", "shown")

    def __init__(self, cursor: StreamId, *, reset: bool) -> None:
        self.position = cursor
        self.shown, self.bridged = split_cursor(cursor)
        self.ended = False
        self._left = cursor
        self._reset = reset

    def take(self, entries: Sequence[Entry]) -> list[bytes]:
        """The frames of a page's entries, compacted. Stops after END. Raises StreamCut."""
        frames: list[bytes] = []
        run_from = 0
        for at, entry in enumerate(entries):
            self._advance(entry.id)
            if entry.body[:1] == b"!":
                frames += self._show(entries[run_from:at])
                run_from = at + 1
                frames += self._obey(entry)
                if self.ended:
                    return frames
        frames += self._show(entries[run_from:])
        return frames

    def take_batches(self, batches: Iterable[Batch]) -> list[bytes]:
        """The frames of a run that the ring has proven to follow `position`. Raises StreamCut."""
        frames: list[bytes] = []
        for batch in batches:
            if batch.entries:
                frames += self.take(batch.entries)
                if self.ended:
                    break
            else:
                frames.append(batch.frames)
                self.position = self.shown = StreamId(self.position.fence, batch.last)
        return frames

    def _advance(self, id: StreamId) -> None:
        fence, seq = self.position
        if id.fence == fence:
            if id.seq != seq + 1:
                raise StreamCut(f"{id} after {self.position}")
        else:
            if id.seq != 1 or id.fence < fence:
                raise StreamCut(f"{id} after {self.position}")
            self._left, _ = split_cursor(self.position)
        self.position = id

    def _show(self, entries: Sequence[Entry]) -> list[bytes]:
        if not entries:
            return []
        self.shown = entries[-1].id
        return framed(entries)

    def _obey(self, entry: Entry) -> list[bytes]:
        if entry.body == END:
            self.ended = True
        elif (marker := Marker.find(entry.body)) is not None:
            return self._cross(entry.id, marker)
        return []

    def _cross(self, id: StreamId, marker: Marker) -> list[bytes]:
        """The bridge from a dead attempt; each chunk but the last has a cursor of its own beyond `shown`."""
        if marker.anew:
            if self.shown != BEGINNING:
                raise StreamCut("the message begins again")
        elif self._left < marker.checkpoint:
            raise StreamCut(f"{marker.checkpoint} was not seen, only {self._left}")
        elif self._left > marker.dead_top:  # Redis lost entries that it had acknowledged: no marker tells of them
            raise StreamCut(f"{self._left} was seen, the takeover knew {marker.dead_top} only")
        bridged, self.bridged = self.bridged, 0
        # a client that has some of the closing chunks gets the rest of them
        chunks = bridge(marker, self.shown, reset=self._reset and not bridged)
        if bridged and bridged >= len(chunks):
            raise StreamCut("no such place in a takeover")
        if not chunks:
            return []
        seen = self.shown
        ids = [StreamId(seen.fence, seen.seq | n << CLOSING_BITS) for n in range(1, len(chunks))]
        self.shown = id
        return [frame(i, encode(chunk)) for i, chunk in list(zip([*ids, id], chunks, strict=True))[bridged:]]
