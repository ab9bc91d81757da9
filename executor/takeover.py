"""Taking a stream up where another attempt left it.

    fence   no older attempt can append from here on
    read    the dead attempt's tail, after the checkpoint
    marker  what is about to go
    remove  the tail, in ONE command

A process may die between any two of these: the next takeover finds the tail, whole or gone, and what the markers say.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.chat import keys
from backend.chat.chunks import FENCE
from backend.chat.markers import ANEW, Journal, Marker
from backend.chat.models import Task, TaskKind
from backend.chat.streams import Streams
from backend.chat.writing import Flusher, StreamWriter
from backend.failpoints import reach
from backend.ids import BEGINNING, StreamId, fence_of

OUTSIDE = 1
"""The attempt under which an operation's stream is written until its outcome comes."""
_START = b'{"type":"start"'
_HEAD = 100


@dataclass(frozen=True, slots=True)
class Takeover:
    """A stream that is ours. `anew`: it is empty for its readers; `start` and the committed steps are to be written.

    Else it stands at the task's checkpoint, with a step open: the one of the checkpoint (`mid_step`), or the new one
    that the marker stands for.
    """

    writer: StreamWriter
    anew: bool


async def take_over(streams: Streams, flusher: Flusher, task: Task, *, mid_step: bool) -> Takeover:
    """Makes the stream of a claimed task ours, cut back to its checkpoint. `mid_step`: that lies inside a step.

    Raises Fenced, StreamGone, StreamUnavailable, and Unavailable.
    """
    key = keys.stream_key(task.session_id, task.id)
    writer = flusher.writer(key, task.fence, create=True)
    await writer.control(FENCE)
    fence = await writer.drain()
    checkpoint = task.checkpoint
    if task.kind is TaskKind.OPERATION and not task.steps:  # what was written while it was outside stays
        checkpoint = await streams.last_of(key, fence_of(task.number, OUTSIDE))
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
    """The entry after which the tail begins: the checkpoint, else `start`. None when what should be there is not."""
    head = await streams.page(key, BEGINNING, count=_HEAD, until=fence)
    start = next((entry.id for entry in head if _is_start(entry.body)), None)
    if checkpoint is None or start is None:
        return start
    return checkpoint if await streams.has(key, checkpoint) else None


def _is_start(body: bytes) -> bool:
    return body.startswith(_START)
