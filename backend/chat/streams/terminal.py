"""Ends of streams that no attempt will write: of tasks that never began, or that are delivered after their end."""

from __future__ import annotations

from collections.abc import Sequence

from backend.chat import keys
from backend.chat.models import Message, Task
from backend.chat.protocol.chunks import END, Chunk, FinishStep, Start, encode
from backend.chat.protocol.chunks_from_rows import terminal_chunks
from backend.chat.streams.open_parts import OpenParts
from backend.chat.streams.streams import Entry, Streams
from backend.chat.streams.takeover_marker import Journal
from backend.chat.streams.writer import Flusher
from backend.ids import BEGINNING


async def write_whole_end(flusher: Flusher, task: Task, taken: Sequence[Message] = ()) -> None:
    """Writes the stream of a task that ended before it began: `start`, `taken` messages, the terminal chunks, END.

    Raises Fenced, StreamGone, StreamUnavailable.
    """
    writer = flusher.writer(keys.stream_key(task.session_id, task.id), task.fence, create=True)
    chunks: list[Chunk] = [Start(task.message_id), *terminal_chunks(task, step_open=False, taken=taken)]
    await writer.append(*chunks)
    await writer.control(END)
    await writer.drain()


async def ensure_terminal(streams: Streams, flusher: Flusher, task: Task, terminal: Sequence[Chunk]) -> None:
    """Ends the stream of an ended task if it has no END yet: closes the open parts, adds `terminal`, then END.

    Serves a task that is delivered again after its end. A second call changes nothing. A stream that is gone, or has
    lost its last entries, stays as it is: its readers get the end from the row. Raises Fenced, StreamGone,
    StreamUnavailable and Unavailable.
    """
    key = keys.stream_key(task.session_id, task.id)
    top = await streams.top(key)  # the ids follow from what is read first, so a later end by others makes this one void
    newest = await streams.newest(key, count=len(terminal) + 1)
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
    """Returns the chunks that close everything that the stream leaves open."""
    journal, opened = Journal(), OpenParts()
    async for page in streams.pages(key, BEGINNING):
        journal.read(page)
    for event in journal.events():
        opened.see(event.kind, event.part, event.tool)
    return [*opened.closings(), *([FinishStep()] if opened.step else [])]


def _already_there(newest: Sequence[Entry], bodies: Sequence[bytes]) -> int:
    """Returns how many of `bodies`, from the first one on, the stream already has at its end."""
    there = [entry.body for entry in newest]
    return next((n for n in range(min(len(there), len(bodies)), 0, -1) if there[-n:] == list(bodies[:n])), 0)
