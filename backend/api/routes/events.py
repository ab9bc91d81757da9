"""The event feed of a caller: what runs now, then hints of what changes, for as long as the client likes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from backend.api.attaching import seat_for
from backend.api.deps import AsIdentity, AtDesk
from backend.api.desk import CallerRoute, Desk
from backend.api.problems import responses
from backend.api.sse import EventStream
from backend.chat import operations, sessions, tasks
from backend.chat.chunks import ascii_json
from backend.chat.frames import frame_without_id
from backend.chat.keys import session_feed, user_feed
from backend.chat.models import Caller, Json, Task, TaskKind
from backend.chat.outcomes import Operation
from backend.errors import Unauthenticated
from backend.ids import SESSION_ID_PATTERN, SessionId

router = APIRouter(tags=["events"], route_class=CallerRoute, responses=responses(401, 404, 413, 422, 429, 503))
_FEED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events without ids: a snapshot first, and whenever something may have been missed.",
        "content": {"text/event-stream": {"schema": {"type": "object", "properties": {"data": {"type": "string"}}}}},
    }
}


@router.head("/events", include_in_schema=False)
@router.get("/events", response_class=Response, responses=_FEED)
async def follow_events(
    request: Request,
    desk: AtDesk,
    identity: AsIdentity,
    session_id: Annotated[
        str | None,
        Query(pattern=SESSION_ID_PATTERN, description="This session alone; without a token, needed."),
    ] = None,
) -> Response:
    """Hints of turns, operations and titles, also of turns that the server started. Nothing is replayed."""
    caller, session = identity.caller, SessionId(session_id) if session_id is not None else None
    if session is not None:
        async with desk.house.database.connection() as c:
            await sessions.get_session(c, session, caller)
    elif caller.user_id is None:
        raise Unauthenticated("Without a token, name a session: ?session_id=…")

    async def feed() -> AsyncGenerator[bytes, None]:
        return _frames(desk, caller, session)

    with seat_for(desk, identity, request.method) as seat:
        return EventStream(feed, seat=seat, open_streams=desk.open_streams, expires_at=identity.expires_at)


async def _frames(desk: Desk, caller: Caller, session: SessionId | None) -> AsyncGenerator[bytes, None]:
    if session is not None:
        channel = session_feed(session)
    else:
        assert caller.user_id is not None
        channel = user_feed(caller.user_id)
    with desk.house.hub.listen([channel]) as ear:
        while True:
            heard = await ear.hear()
            if heard is None:
                yield frame_without_id(ascii_json(await _snapshot(desk, caller, session)))
            else:
                yield b"".join(map(frame_without_id, heard))


async def _snapshot(desk: Desk, caller: Caller, session: SessionId | None) -> Json:
    """What runs and waits now. Raises Unavailable, and SessionNotFound when the session is gone or another user's by
    now: then the stream is cut."""
    async with desk.house.database.snapshot() as c:
        if session is not None:
            await sessions.get_session(c, session, caller)
        found = await tasks.unended_tasks(c, session or caller)
        outside = await operations.operations_of_tasks(c, [t.id for t in found if t.kind is TaskKind.OPERATION])
    return {
        "type": "snapshot",
        "turns": [_turn(task) for task in found if task.is_turn],
        "operations": [_operation(operation) for operation in outside.values() if operation.announced],
    }


def _turn(task: Task) -> Json:
    return {"task_id": task.id, "session_id": task.session_id, "waiting": not task.active}


def _operation(operation: Operation) -> Json:
    progress = operation.progress
    return {
        "operation_id": operation.id,
        "task_id": operation.task_id,
        "session_id": operation.session_id,
        "tool_name": operation.work.tool_name,
        "status": operation.status.value,
        "percent": progress.percent if progress is not None else None,
        "message": progress.message if progress is not None else None,
    }
