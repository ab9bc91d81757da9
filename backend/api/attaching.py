"""Responses that stream a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import Response

from backend.api.auth import Identity
from backend.api.open_streams import StreamSlot, Viewer
from backend.api.sse import EventStream, Frames
from backend.api.state import ApiState
from backend.chat.models import Message, NewMessage, Task
from backend.chat.protocol.approval_requests import APPROVAL_REQUESTS, with_approval_requests
from backend.chat.protocol.chunks import encode
from backend.chat.protocol.chunks_from_rows import whole_message
from backend.chat.protocol.page_tools import PAGE_TOOLS, with_page_tools
from backend.chat.protocol.sse_frames import DONE, frame_without_id
from backend.chat.protocol.static_tools import STATIC_TOOLS, with_static_tools
from backend.chat.protocol.steering_messages import STEERING_MESSAGES, with_steering_messages
from backend.chat.store import messages, operations, tasks
from backend.chat.streams import reader
from backend.errors import NothingLeft, TaskExpired
from backend.ids import StreamId, TaskId
from backend.postgres import Connection

_EVENT = {
    "type": "object",
    "properties": {
        "id": {
            "type": "string",
            "description": "The cursor after this event. Events made for this reader alone have no id.",
        },
        "data": {"type": "string", "description": "A chunk as JSON. The data of the last event is `[DONE]`."},
    },
    "required": ["data"],
}

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The AI SDK UI message stream, v1, as server-sent events.",
        "content": {"text/event-stream": {"schema": _EVENT}},
        "headers": {"x-resumable-stream-id": {"description": "The id of the task.", "schema": {"type": "string"}}},
    },
    204: {"description": "There is nothing to stream."},
}


@contextmanager
def slot_for(api: ApiState, identity: Identity, method: str, subject: str | None = None) -> Iterator[StreamSlot | None]:
    """Takes one of the caller's stream slots and releases it at the end, unless an EventStream has taken it over.

    If all are taken, the oldest stream of the same `subject` gives its slot up. Yields None for HEAD, which opens no
    stream. Raises TooManyStreams, and Unavailable while the server stops.
    """
    slot = None if method == "HEAD" else api.open_streams.acquire_slot(identity.caller.quota_key, subject)
    try:
        yield slot
    finally:
        if slot is not None and slot.stream is None:
            slot.release()


async def attach_response(
    api: ApiState,
    identity: Identity,
    task: Task,
    cursor: StreamId | None,
    accepts: frozenset[str],
    slot: StreamSlot | None,
    *,
    from_rows: bool = True,
    by_service: bool = False,
) -> Response:
    """Streams an existing task after `cursor`. Everything that can fail is checked before the first byte.

    Answers 204 if nothing is left after the cursor. If the stream of an ended task has expired, its whole message is
    made from its rows; with `from_rows=False` TaskExpired is raised instead. Also raises CursorExpired and Unavailable.
    The stream ends when the session is assigned to another user, unless it is read `by_service`.
    """
    try:
        frames = await attach_task(api, task, cursor, accepts)
    except NothingLeft:
        return Response(status_code=204)
    except TaskExpired:
        if not from_rows:
            raise
        frames = _in_chosen_form(await _replay_rows(api, task.id), task, accepts)

    async def ready() -> Frames:
        return frames

    viewer = None if by_service else Viewer(task.session_id, identity.caller.user_id)
    return EventStream(
        ready,
        slot=slot,
        open_streams=api.open_streams,
        task_id=task.id,
        expires_at=identity.expires_at,
        viewer=viewer,
    )


def begin_response(
    api: ApiState,
    identity: Identity,
    task: Task,
    accepts: frozenset[str],
    slot: StreamSlot | None,
    *,
    by_service: bool = False,
) -> Response:
    """Streams a turn that has just started. The first byte is sent before any store is asked."""

    viewer = None if by_service else Viewer(task.session_id, identity.caller.user_id)
    return EventStream(
        lambda: attach_task(api, task, None, accepts),
        slot=slot,
        open_streams=api.open_streams,
        task_id=task.id,
        expires_at=identity.expires_at,
        viewer=viewer,
    )


async def attach_task(api: ApiState, task: Task, cursor: StreamId | None, accepts: frozenset[str]) -> Frames:
    """Returns the frames of a task's stream after `cursor`. Raises the errors of `reader.attach`."""
    resources = api.resources

    async def messages_of(task_id: TaskId) -> Sequence[Message | NewMessage]:
        async with resources.database.connection() as c:
            return await _messages_of_task(c, task_id)

    frames = await reader.attach(
        resources.hub, resources.streams, task, cursor, accepts=accepts, messages_of=messages_of
    )
    return _in_chosen_form(frames, task, accepts)


async def attached_or_from_rows(api: ApiState, task: Task, accepts: frozenset[str]) -> Frames:
    """Returns the whole stream of a task; made from its rows if it has ended and its stream has expired.

    Raises TaskExpired and Unavailable.
    """
    try:
        return await attach_task(api, task, None, accepts)
    except TaskExpired:
        return _in_chosen_form(await _replay_rows(api, task.id), task, accepts)


def _in_chosen_form(frames: Frames, task: Task, accepts: frozenset[str]) -> Frames:
    if PAGE_TOOLS in accepts and task.request.page_tools:
        frames = with_page_tools(frames, [tool["name"] for tool in task.request.page_tools])
    if APPROVAL_REQUESTS in accepts:
        frames = with_approval_requests(frames)
    if STEERING_MESSAGES in accepts:
        frames = with_steering_messages(frames)
    return with_static_tools(frames) if STATIC_TOOLS in accepts else frames


async def _replay_rows(api: ApiState, task_id: TaskId) -> Frames:
    """Streams the whole message of an ended task without event ids, because no stream is left to resume.

    Raises TaskExpired if the task has not ended.
    """
    async with api.resources.database.snapshot() as c:
        task = await tasks.get_task(c, task_id)
        if not task.status.ended:
            raise TaskExpired
        rows = await _messages_of_task(c, task_id)

    async def frames() -> Frames:
        for chunk in whole_message(task, rows):
            yield frame_without_id(encode(chunk))
        yield DONE

    return frames()


async def _messages_of_task(c: Connection, task_id: TaskId) -> Sequence[Message | NewMessage]:
    """Returns a task's messages in order. Those of an operation start with its tool call and the call's result."""
    rows = await messages.messages_of_task(c, task_id)
    operation = (await operations.operations_of_tasks(c, [task_id])).get(task_id)
    return [*operation.messages, *rows] if operation is not None else rows
