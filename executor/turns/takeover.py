"""The takeover of a stream that an earlier attempt has written. It has four steps:

    fence   append an entry after which no older attempt can append
    read    read the dead attempt's tail, which follows the checkpoint
    marker  append a marker that lists what is about to be removed
    remove  delete the tail, in ONE command

A process may die between any two of these steps. The next takeover finds the tail either whole or removed, and reads
the markers of the earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.chat import keys
from backend.chat.models import Task, TaskKind
from backend.chat.protocol.chunks import FENCE
from backend.chat.streams.streams import Streams
from backend.chat.streams.takeover_marker import ANEW, Journal, Marker
from backend.chat.streams.writer import Flusher, StreamWriter
from backend.failpoints import reach
from backend.ids import BEGINNING, StreamId, fence_of

PENDING_ATTEMPT = 1
"""The attempt in the fence of an operation's stream entries until its outcome comes."""
_START = b'{"type":"start"'
_HEAD = 100
"""Entries at the beginning of a stream in which `start` is looked for."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """A stream that this attempt may write.

    If `anew` is true, its readers see it as empty, and `start` and the committed steps must be written again.
    Otherwise it ends at the task's checkpoint with an open step: the one in which the checkpoint lies (`mid_step`), or
    a new one that the marker has opened.
    """

    writer: StreamWriter
    anew: bool


async def take_over(streams: Streams, flusher: Flusher, task: Task, *, mid_step: bool) -> Takeover:
    """Takes over the stream of a claimed task, and cuts it back to its checkpoint.

    `mid_step` says that the checkpoint lies inside a step. Raises Fenced, StreamGone, StreamUnavailable and
    Unavailable.
    """
    key = keys.stream_key(task.session_id, task.id)
    writer = flusher.writer(key, task.fence, create=True)
    await writer.control(FENCE)
    fence = await writer.drain()
    checkpoint = task.checkpoint
    if task.kind is TaskKind.OPERATION and not task.steps:  # entries from before its outcome stay
        checkpoint = await streams.last_of(key, fence_of(task.number, PENDING_ATTEMPT))
    base = await _find_base(streams, key, checkpoint, fence)
    journal, tail = Journal(), []
    async for page in streams.pages(key, base or BEGINNING, until=StreamId(task.fence, 0)):
        tail += [entry.id for entry in page]
        if base is not None:
            journal.read(page)
    events = () if mid_step else journal.events()
    marker = ANEW if base is None else Marker(base, tail[-1] if tail else base, mid_step, events)
    await writer.control(marker.encode())
    await writer.drain()
    reach("after_attempt_marker")
    await streams.remove(key, tail)
    return Takeover(writer, anew=base is None)


async def _find_base(streams: Streams, key: str, checkpoint: StreamId | None, fence: StreamId) -> StreamId | None:
    """Returns the entry before the tail: the checkpoint, or `start` if there is none. Returns None if it is missing."""
    head = await streams.page(key, BEGINNING, count=_HEAD, until=fence)
    start = next((entry.id for entry in head if _is_start(entry.body)), None)
    if checkpoint is None or start is None:
        return start
    return checkpoint if await streams.has(key, checkpoint) else None


def _is_start(body: bytes) -> bool:
    return body.startswith(_START)
