"""Taking a stream up where another attempt left it.

    fence   no older attempt can append from here on
    read    the dead attempt's tail, after the checkpoint
    marker  what is about to go
    remove  the tail, in ONE command

A process may die between any two of these: the next takeover finds the tail, whole or gone, and what the markers say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.chat import keys
from backend.chat.bridges import OpenParts
from backend.chat.chunks import END, FENCE, Chunk, FinishStep, encode
from backend.chat.markers import ANEW, Journal, Marker
from backend.chat.models import Task
from backend.chat.streams import Entry, Streams
from backend.chat.writing import Flusher, StreamWriter
from backend.failpoints import reach
from backend.ids import BEGINNING, StreamId

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
    base = await _find_base(streams, key, task.checkpoint, fence)
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


async def ensure_terminal(streams: Streams, flusher: Flusher, task: Task, terminal: Sequence[Chunk]) -> None:
    """Ends the stream of an ended task if it has no end yet: closes what is open, then `terminal`, then END.

    For a task that is delivered again after its end; harmless twice. A stream that is gone, or has lost its last
    entries, stays so: its readers end from the row. Raises Fenced, StreamGone, StreamUnavailable, and Unavailable.
    """
    key = keys.stream_key(task.session_id, task.id)
    newest = await streams.newest(key, count=len(terminal) + 1)
    top = await streams.top(key)
    if top is None or top < (task.checkpoint or BEGINNING) or (newest and newest[-1].body == END):
        return
    closings = await _closings(streams, key)
    wanted = [chunk for chunk in terminal if not isinstance(chunk, FinishStep)]
    missing = wanted[_already_there(newest, [encode(chunk) for chunk in wanted]) :]
    next_seq = top.seq + 1 if top.fence == task.fence else 1
    writer = flusher.writer(key, task.fence, next_seq=next_seq, create=False)
    await writer.append(*closings, *missing)
    await writer.control(END)
    await writer.drain()


async def _closings(streams: Streams, key: str) -> list[Chunk]:
    """What closes all that the stream leaves open."""
    journal, opened = Journal(), OpenParts()
    async for page in streams.pages(key, BEGINNING):
        journal.read(page)
    for event in journal.events():
        opened.see(event.kind, event.part, event.tool)
    return [*opened.closings(), *([FinishStep()] if opened.step else [])]


def _already_there(newest: Sequence[Entry], bodies: Sequence[bytes]) -> int:
    """How many of `bodies`, from the first on, the stream ends with."""
    there = [entry.body for entry in newest]
    return next((n for n in range(min(len(there), len(bodies)), 0, -1) if there[-n:] == list(bodies[:n])), 0)
