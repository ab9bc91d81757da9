"""From a task to the response that streams it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import Response

from backend.api.auth import Identity
from backend.api.desk import Desk
from backend.api.open_streams import Seat
from backend.api.sse import EventStream
from backend.chat import messages, operations, reading, tasks
from backend.chat.chunks import encode
from backend.chat.frames import DONE, frame_without_id
from backend.chat.models import Message, NewMessage, Task
from backend.chat.snapshot import whole_message
from backend.errors import NothingLeft, TaskExpired
from backend.ids import StreamId, TaskId
from backend.postgres import Connection

_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The cursor after this event; chunks made for this reader have none."},
        "data": {"type": "string", "description": "A chunk as JSON; the last event is `[DONE]`."},
    },
    "required": ["data"],
}

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The AI SDK UI message stream, v1, as server-sent events.",
        "content": {"text/event-stream": {"schema": _EVENT}},
        "headers": {"x-resumable-stream-id": {"description": "The task.", "schema": {"type": "string"}}},
    },
    204: {"description": "There is nothing to stream."},
}


@contextmanager
def seat_for(desk: Desk, identity: Identity, method: str) -> Iterator[Seat | None]:
    """A seat among the caller's open streams, kept when the body hands it to a stream; None for HEAD, which opens none.

    Raises TooManyStreams.
    """
    seat = None if method == "HEAD" else desk.open_streams.take_seat(identity.caller.quota_key)
    try:
        yield seat
    finally:
        if seat is not None and not seat.kept:
            seat.leave()


async def attach_response(
    desk: Desk,
    identity: Identity,
    task: Task,
    cursor: StreamId | None,
    accepts: frozenset[str],
    seat: Seat | None,
    *,
    from_rows: bool = True,
) -> Response:
    """Streams what is there already: all that can be wrong is found before the first byte.

    When the stream of an ended task has expired, its whole message is made from its rows; TaskExpired if `from_rows`
    is false.
    """
    try:
        blocks = await _attach(desk, task, cursor, accepts)
    except NothingLeft:
        return Response(status_code=204)
    except TaskExpired:
        if not from_rows:
            raise
        blocks = await _replay_rows(desk, task.id)

    async def ready() -> AsyncGenerator[bytes, None]:
        return blocks

    return EventStream(
        ready, seat=seat, open_streams=desk.open_streams, task_id=task.id, expires_at=identity.expires_at
    )


def begin_response(desk: Desk, identity: Identity, task: Task, accepts: frozenset[str], seat: Seat | None) -> Response:
    """Streams a turn that has just begun: nothing is asked before the first byte."""

    async def attach_soon() -> AsyncGenerator[bytes, None]:
        return await _attach(desk, task, None, accepts)

    return EventStream(
        attach_soon, seat=seat, open_streams=desk.open_streams, task_id=task.id, expires_at=identity.expires_at
    )


async def _attach(
    desk: Desk, task: Task, cursor: StreamId | None, accepts: frozenset[str]
) -> AsyncGenerator[bytes, None]:
    house = desk.house

    async def messages_of(task_id: TaskId) -> Sequence[Message | NewMessage]:
        async with house.database.connection() as c:
            return await said_by(c, task_id)

    return await reading.attach(house.hub, house.streams, task, cursor, accepts=accepts, messages_of=messages_of)


async def _replay_rows(desk: Desk, task_id: TaskId) -> AsyncGenerator[bytes, None]:
    """The whole message of an ended task, without ids: there is nothing to come back to. Raises TaskExpired."""
    async with desk.house.database.snapshot() as c:
        task = await tasks.get_task(c, task_id)
        if not task.status.ended:
            raise TaskExpired
        rows = await said_by(c, task_id)

    async def blocks() -> AsyncGenerator[bytes, None]:
        for chunk in whole_message(task, rows):
            yield frame_without_id(encode(chunk))
        yield DONE

    return blocks()


async def said_by(c: Connection, task_id: TaskId) -> Sequence[Message | NewMessage]:
    """All that a task has said, in order. What an operation says begins with its call, and what came of it."""
    rows = await messages.messages_of_task(c, task_id)
    operation = (await operations.operations_of_tasks(c, [task_id])).get(task_id)
    return [*operation.said, *rows] if operation is not None else rows
