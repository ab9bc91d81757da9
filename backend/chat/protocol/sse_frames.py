"""Frames of server-sent events. No other module frames a chunk.

Bodies are ASCII without line breaks (`chunks.encode`), and ids are numbers. So nothing in a frame needs escaping.
"""

from __future__ import annotations

from collections.abc import Iterable

from backend.ids import StreamId

OPEN = b": stream-open\n\n"
HEARTBEAT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


def frame(id: StreamId, body: bytes) -> bytes:
    """Returns the frame of one chunk; `id` becomes the client's cursor."""
    return b"id: %d-%d\ndata: %b\n\n" % (id.fence, id.seq, body)


def frame_without_id(body: bytes) -> bytes:
    """Returns the frame of a chunk that is not in the stream, which leaves the client's cursor as it is."""
    return b"data: %b\n\n" % body


def frame_run(fence: int, first: int, bodies: Iterable[bytes]) -> bytes:
    """Returns the frames of one batch, whose sequence numbers rise by one from `first` on."""
    return b"".join([b"id: %d-%d\ndata: %b\n\n" % (fence, seq, body) for seq, body in enumerate(bodies, first)])
