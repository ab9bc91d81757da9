"""A reader of a task's stream: one loop, from a cursor to the end, for replay and for live chunks.

A reader is a position. It takes the entries after it from the ring of its stream. If the ring cannot prove that no
entry is missing, it reads the next page of the stream itself. If there is nothing new, it waits.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing

from backend.chat.keys import stream_key
from backend.chat.models import Message, NewMessage, Task
from backend.chat.protocol.chunks import END, Chunk, encode
from backend.chat.protocol.chunks_from_rows import terminal_chunks, whole_message
from backend.chat.protocol.sse_frames import DONE, frame_without_id
from backend.chat.streams.hub import Hub
from backend.chat.streams.open_parts import OpenParts
from backend.chat.streams.rendering import Rendering, split_cursor
from backend.chat.streams.streams import Entry, PageSize, Streams
from backend.chat.streams.takeover_marker import Journal, Marker
from backend.errors import CursorExpired, Gone, NothingLeft, StreamCut, TaskExpired, Unavailable
from backend.ids import BEGINNING, StreamId, TaskId

RESET_STEP = "reset-step"
WRITE_BYTES = 64 << 10
"""Bytes in one write to a client; a larger chunk is a write of its own."""
LOOK_AHEAD = 8
"""Entries that are read to check a cursor."""
_FINISH = b'{"type":"finish",'
MessagesOf = Callable[[TaskId], Awaitable[Sequence[Message | NewMessage]]]


async def attach(
    hub: Hub,
    streams: Streams,
    task: Task,
    cursor: StreamId | None,
    *,
    accepts: frozenset[str],
    messages_of: MessagesOf,
) -> AsyncGenerator[bytes, None]:
    """Returns a generator of the task's chunks after `cursor`, framed, several in each item, up to `[DONE]`.

    None or 0-0 asks for the whole message. The generator waits for a task that has not begun, and raises StreamCut if
    it cannot continue to `finish`. Close it with `aclose()`.

    Before the first byte, raises
    - CursorExpired if the cursor cannot be served: it is another task's, it is ahead of the stream, or the stream or
      the entry is gone;
    - TaskExpired if the whole message was asked for, and the stream is gone or has lost entries;
    - NothingLeft if the cursor is at the end;
    - Unavailable if Redis does not answer.
    """
    key = stream_key(task.session_id, task.id)
    reset = RESET_STEP in accepts
    cursor = cursor or BEGINNING
    if task.status.ended:
        await _check_end(streams, key, task, TaskExpired if cursor == BEGINNING else CursorExpired)
    if cursor == BEGINNING:
        if task.attempt:  # before the first attempt nothing was written, so nothing can be missing
            await _check_whole(streams, key, task)
    else:
        await _check_cursor(streams, key, task, cursor, reset=reset)
    return _read(hub, streams, task, Rendering(cursor, reset=reset), messages_of)


async def wait_for_end(hub: Hub, streams: Streams, task: Task) -> None:
    """Waits without a limit until the task has ended, by its stream or its row. Raises StreamCut, and Unavailable."""
    key = stream_key(task.session_id, task.id)
    newest = await streams.newest(key)
    if newest and newest[-1].body == END:
        return
    rendering = Rendering(newest[-1].id if newest else BEGINNING, reset=True)
    async with aclosing(_read(hub, streams, task, rendering, _no_messages)) as chunks:
        async for _ in chunks:
            pass


async def _no_messages(_: TaskId) -> Sequence[Message | NewMessage]:
    return ()


# --- before the first byte --------------------------------------------------------------------------------------------


async def _check_end(streams: Streams, key: str, task: Task, gone: type[Gone]) -> None:
    """Raises `gone` if an ended task's stream has lost entries. The row replaces END if only that is missing."""
    newest = await streams.newest(key)
    if newest and newest[-1].body != END:
        try:
            await _reread(streams, key, task, newest[-1].id)
        except StreamCut:
            raise gone from None


async def _check_whole(streams: Streams, key: str, task: Task) -> None:
    """Raises TaskExpired unless the stream has all entries from the first on, or has not begun."""
    ahead = await streams.page(key, BEGINNING, count=LOOK_AHEAD)
    if not ahead:
        if task.status.ended:
            raise TaskExpired
        if await streams.top(key) is None:
            return
        ahead = await streams.page(key, BEGINNING, count=LOOK_AHEAD)
        if not ahead:  # all entries were removed; otherwise the stream began between the two reads
            raise TaskExpired
    try:
        Rendering(BEGINNING, reset=False).take(ahead)
    except StreamCut:
        raise TaskExpired from None


async def _check_cursor(streams: Streams, key: str, task: Task, cursor: StreamId, *, reset: bool) -> None:
    """Raises CursorExpired unless the cursor is of this task's stream and the next entries follow it without a gap.

    Raises NothingLeft if nothing follows it.
    """
    seen, bridged = split_cursor(cursor)
    if cursor.task_number != task.number or not seen.seq:
        raise CursorExpired
    around = await streams.page(key, StreamId(seen.fence, seen.seq - 1), count=LOOK_AHEAD)
    if around and around[0].id == seen:
        own, ahead = around[0], around[1:]
        if not bridged and _nothing_follows(own, ahead):
            raise NothingLeft
    else:
        ahead = around
        if not _was_removed(seen, ahead):
            raise CursorExpired
    rendering = Rendering(cursor, reset=reset)
    try:
        rendering.take(ahead)
    except StreamCut:
        raise CursorExpired from None
    if rendering.bridged:
        raise CursorExpired


def _nothing_follows(own: Entry, ahead: Sequence[Entry]) -> bool:
    if own.body.startswith(_FINISH):
        return True
    return any(e.body == END for e in ahead) and all(e.body[:1] == b"!" for e in ahead)


def _was_removed(seen: StreamId, ahead: Sequence[Entry]) -> bool:
    """Returns True if a takeover removed this entry: the next entries then begin with its marker."""
    return any(marker.checkpoint < seen <= marker.dead_top for marker in _leading_markers(ahead))


def _leading_markers(entries: Sequence[Entry]) -> Iterator[Marker]:
    for entry in entries:
        if entry.body[:1] != b"!":
            return
        if (marker := Marker.find(entry.body)) is not None:
            yield marker


# --- the loop ---------------------------------------------------------------------------------------------------------


async def _read(
    hub: Hub, streams: Streams, task: Task, rendering: Rendering, messages_of: MessagesOf
) -> AsyncGenerator[bytes, None]:
    key = stream_key(task.session_id, task.id)
    with hub.follow(key, task.id) as ring:
        while hub.healthy and not ring.confirmed and not ring.lost:
            await ring.news(ring.version)
        # such a cursor was made for this client and names no stored entry, so the ring cannot continue from it
        ask_stream = rendering.bridged > 0
        page_size = PageSize()
        while True:
            version = ring.version
            batches = None if ask_stream else ring.after(rendering.position)
            ask_stream = False
            if batches is None:
                frames, caught_up = await _replay(streams, key, rendering, page_size)
                ring.saw(rendering.position)
            else:
                frames = rendering.take_batches(batches)
                caught_up = not batches
            if rendering.ended:
                frames.append(DONE)
            for piece in _pieces(frames):
                yield piece
            if rendering.ended:
                return
            if caught_up and ring.version == version:
                if ring.lost:
                    raise StreamCut("the stream was lost")
                if ring.ended is not None:
                    frames = await _ending(streams, key, ring.ended, rendering, messages_of)
                    yield b"".join([*frames, DONE])
                    return
                await ring.news(version)


async def _replay(streams: Streams, key: str, rendering: Rendering, size: PageSize) -> tuple[list[bytes], bool]:
    """Returns the frames of the stream's next page, and True if it was the last page."""
    try:
        page = await streams.page(key, rendering.position, count=size.count)
    except Unavailable as error:
        raise StreamCut("Redis does not answer") from error
    return rendering.take(page), not size.saw(page)


def _pieces(frames: Sequence[bytes]) -> Iterator[bytes]:
    """Joins the frames into writes of WRITE_BYTES at most; a larger frame stays whole."""
    start = size = 0
    for at, one in enumerate(frames):
        if size and size + len(one) > WRITE_BYTES:
            yield b"".join(frames[start:at])
            start, size = at, 0
        size += len(one)
    if size:
        yield b"".join(frames[start:]) if start or len(frames) > 1 else frames[0]


async def _ending(streams: Streams, key: str, task: Task, rendering: Rendering, messages_of: MessagesOf) -> list[bytes]:
    """Returns the frames that end a task whose stream has no end, made from its row.

    A client that was shown nothing gets the whole message.
    """
    chunks: list[Chunk]
    if rendering.shown == BEGINNING:
        chunks = whole_message(task, await messages_of(task.id))
    else:
        try:
            journal = await _reread(streams, key, task, rendering.position)
        except Unavailable as error:
            raise StreamCut("Redis does not answer") from error
        opened = OpenParts(journal.events())
        chunks = [*opened.closings(), *terminal_chunks(task, step_open=opened.step)]
    return [frame_without_id(encode(chunk)) for chunk in chunks]


async def _reread(streams: Streams, key: str, task: Task, until: StreamId) -> Journal:
    """Returns the events of an ended task's stream up to the entry `until`.

    Raises StreamCut if entries are missing: Redis may have lost some that it had acknowledged, even the last ones.
    Raises Unavailable.
    """
    journal, whole = Journal(), Rendering(BEGINNING, reset=False)
    async for page in streams.pages(key, BEGINNING, until=until):
        journal.read(page)
        whole.take(page)
    if whole.position != until or until < (task.checkpoint or BEGINNING):
        raise StreamCut(f"the last entry is {whole.position}, but {task.checkpoint} was written")
    return journal
