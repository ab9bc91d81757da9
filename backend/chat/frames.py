"""The one place where a chunk is framed as a server-sent event.

Bodies are ASCII without line breaks (`chunks.encode`) and ids are numbers, so nothing in a frame needs escaping.
"""

from __future__ import annotations

from collections.abc import Iterable

from backend.ids import StreamId

OPEN = b": stream-open\n\n"
HEARTBEAT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


def frame(id: StreamId, body: bytes) -> bytes:
    """One chunk; `id` becomes the client's cursor."""
    return b"id: %d-%d\ndata: %b\n\n" % (id.fence, id.seq, body)


def frame_without_id(body: bytes) -> bytes:
    """One chunk that is not in the stream: the client's cursor stays where it was."""
    return b"data: %b\n\n" % body


def frame_run(fence: int, first: int, bodies: Iterable[bytes]) -> bytes:
    """The chunks of one batch, whose sequence numbers follow each other from `first` on."""
    return b"".join([b"id: %d-%d\ndata: %b\n\n" % (fence, seq, body) for seq, body in enumerate(bodies, first)])
