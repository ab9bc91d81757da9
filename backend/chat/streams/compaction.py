"""Compaction for replay: neighbouring deltas of one part become one delta, under the id of the last one.

The stored entries do not change, so every cursor among them stays exact. Deltas are joined as bytes: `chunks.encode`
puts the text last, so two deltas of one part differ only between their common head and the closing `"}`. Joining
escaped text also repairs a surrogate pair that was split between two deltas. No other chunk is parsed.
"""

from __future__ import annotations

from collections.abc import Iterable

from backend.chat.protocol.chunks import REASONING_DELTA_PREFIX, TEXT_DELTA_PREFIX, TOOL_INPUT_DELTA_PREFIX
from backend.chat.protocol.sse_frames import frame
from backend.chat.streams.streams import Entry
from backend.ids import StreamId

RUN_BYTES = 64 << 10
"""Bytes after which a joined delta takes no more."""
_DELTAS = (TEXT_DELTA_PREFIX, REASONING_DELTA_PREFIX, TOOL_INPUT_DELTA_PREFIX)
_TAIL = b'"}'


def _head(body: bytes) -> bytes | None:
    """Returns everything before the text of a delta: its type and part. Returns None for any other chunk."""
    if not body.startswith(_DELTAS) or not body.endswith(_TAIL):
        return None
    # the key cannot occur inside the part's id: a quote in there is escaped
    start = body.find(b'"inputTextDelta":"' if body.startswith(TOOL_INPUT_DELTA_PREFIX) else b'"delta":"')
    return body[: body.index(b':"', start) + 2] if start > 0 else None


def merged_frames(entries: Iterable[Entry]) -> list[bytes]:
    """Returns the frames of `entries`, with deltas joined up to about RUN_BYTES each. Takes no control entries."""
    frames: list[bytes] = []
    head: bytes | None = None
    texts: list[bytes] = []
    size = skip = 0
    last: StreamId | None = None
    for id, body in entries:
        if head is not None and last is not None:
            if size < RUN_BYTES and body.startswith(head) and body.endswith(_TAIL):
                texts.append(body[skip:-2])
                size += len(body)
                last = id
                continue
            frames.append(frame(last, b"%b%b%b" % (head, b"".join(texts), _TAIL)))
        head = _head(body)
        if head is None:
            frames.append(frame(id, body))
        else:
            skip = len(head)
            texts = [body[skip:-2]]
            size = len(body)
            last = id
    if head is not None and last is not None:
        frames.append(frame(last, b"%b%b%b" % (head, b"".join(texts), _TAIL)))
    return frames
