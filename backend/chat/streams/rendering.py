"""The frames that one client gets for the entries of a stream, from its cursor on. No I/O.

Every entry is taken exactly once and in order. A gap that no takeover explains raises StreamCut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backend.chat.protocol.chunks import END, encode
from backend.chat.protocol.sse_frames import frame
from backend.chat.streams.compaction import merged_frames
from backend.chat.streams.open_parts import bridge
from backend.chat.streams.ring import FramedBatch
from backend.chat.streams.streams import Entry
from backend.chat.streams.takeover_marker import Marker
from backend.errors import StreamCut
from backend.ids import BEGINNING, StreamId

CLOSING_BITS = 40
"""A cursor inside a takeover's bridge is `<fence>-<seq | n << 40>`: the last entry seen, and n bridge chunks sent."""


def split_cursor(cursor: StreamId) -> tuple[StreamId, int]:
    """Returns the last entry that the client has seen, and the number of bridge chunks that it has after that."""
    return StreamId(cursor.fence, cursor.seq & ((1 << CLOSING_BITS) - 1)), cursor.seq >> CLOSING_BITS


class Rendering:
    """One client's progress: `position` is the last entry that was taken, `shown` the last one that the client has.

    `bridged` counts the chunks of a takeover's bridge that the client has after `shown`.
    """

    __slots__ = ("_left", "_reset", "bridged", "ended", "position", "shown")

    def __init__(self, cursor: StreamId, *, reset: bool) -> None:
        self.position = cursor
        self.shown, self.bridged = split_cursor(cursor)
        self.ended = False
        self._left = cursor
        self._reset = reset

    def take(self, entries: Sequence[Entry]) -> list[bytes]:
        """Returns the frames of a page's entries, compacted. Stops after END. Raises StreamCut."""
        frames: list[bytes] = []
        run_from = 0
        for at, entry in enumerate(entries):
            self._advance(entry.id)
            if entry.body[:1] == b"!":
                frames += self._show(entries[run_from:at])
                run_from = at + 1
                frames += self._take_control(entry)
                if self.ended:
                    return frames
        frames += self._show(entries[run_from:])
        return frames

    def take_batches(self, batches: Iterable[FramedBatch]) -> list[bytes]:
        """Returns the frames of batches that the ring has proven to follow `position`. Raises StreamCut."""
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
        return merged_frames(entries)

    def _take_control(self, entry: Entry) -> list[bytes]:
        if entry.body == END:
            self.ended = True
        elif (marker := Marker.find(entry.body)) is not None:
            return self._cross(entry.id, marker)
        return []

    def _cross(self, id: StreamId, marker: Marker) -> list[bytes]:
        """Returns the bridge from a dead attempt. Each chunk but the last has a cursor of its own, after `shown`."""
        if marker.anew:
            if self.shown != BEGINNING:
                raise StreamCut("the message begins again, and the client has some of it")
        elif self._left < marker.checkpoint:
            raise StreamCut(f"the takeover kept entries up to {marker.checkpoint}, but the reader has {self._left}")
        elif self._left > marker.dead_top:  # Redis lost entries that it had acknowledged; no marker has them
            raise StreamCut(f"the reader has {self._left}, but the takeover knew entries up to {marker.dead_top} only")
        bridged, self.bridged = self.bridged, 0
        # a client that has some of the closing chunks gets the others
        chunks = bridge(marker, self.shown, reset=self._reset and not bridged)
        if bridged and bridged >= len(chunks):
            raise StreamCut("the cursor is beyond the end of the takeover's bridge")
        if not chunks:
            return []
        seen = self.shown
        ids = [StreamId(seen.fence, seen.seq | n << CLOSING_BITS) for n in range(1, len(chunks))]
        self.shown = id
        return [frame(i, encode(chunk)) for i, chunk in list(zip([*ids, id], chunks, strict=True))[bridged:]]
