"""The event feed of a caller: a snapshot of running work, then hints about changes until the client disconnects."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from backend.api.attaching import slot_for
from backend.api.deps import AppState, AsIdentity
from backend.api.open_streams import Viewer
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.sse import EventStream
from backend.api.state import ApiState
from backend.chat.keys import session_feed, user_feed
from backend.chat.models import Caller, Json, Task, TaskKind
from backend.chat.outcomes import Operation
from backend.chat.protocol.chunks import ascii_json
from backend.chat.protocol.sse_frames import frame_without_id
from backend.chat.store import operations, sessions, tasks
from backend.errors import Unauthenticated
from backend.ids import SESSION_ID_PATTERN, SessionId

router = APIRouter(tags=["events"], route_class=CallerRoute, responses=responses(401, 404, 413, 422, 429, 503))
_FEED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events without ids. A `snapshot` comes first, and again if hints may be lost.",
        "content": {"text/event-stream": {"schema": {"type": "object", "properties": {"data": {"type": "string"}}}}},
    }
}


@router.head("/events", include_in_schema=False)
@router.get("/events", response_class=Response, responses=_FEED)
async def follow_events(
    request: Request,
    api: AppState,
    identity: AsIdentity,
    session_id: Annotated[
        str | None,
        Query(pattern=SESSION_ID_PATTERN, description="Limits the feed to this session. Required without a token."),
    ] = None,
) -> Response:
    """Streams hints about turns, operations and titles, including turns that the server started itself.

    Hints are not stored. After a reconnect the feed starts with a new snapshot.
    """
    caller, session = identity.caller, SessionId(session_id) if session_id is not None else None
    if session is not None:
        async with api.resources.database.connection() as c:
            await sessions.get_session(c, session, caller)
    elif caller.user_id is None:
        raise Unauthenticated("Without a token, `session_id` is required.")

    async def feed() -> AsyncGenerator[bytes, None]:
        return _frames(api, caller, session)

    viewer = Viewer(session, caller.user_id) if session is not None else None
    with slot_for(api, identity, request.method, f"events {session or ''}") as slot:
        return EventStream(
            feed, slot=slot, open_streams=api.open_streams, expires_at=identity.expires_at, viewer=viewer
        )


async def _frames(api: ApiState, caller: Caller, session: SessionId | None) -> AsyncGenerator[bytes, None]:
    if session is not None:
        channel = session_feed(session)
    else:
        assert caller.user_id is not None
        channel = user_feed(caller.user_id)
    with api.resources.hub.listen([channel]) as subscription:
        while True:
            received = await subscription.receive()
            if received is None:
                yield frame_without_id(ascii_json(await _snapshot(api, caller, session)))
            else:
                yield b"".join(map(frame_without_id, received))


async def _snapshot(api: ApiState, caller: Caller, session: SessionId | None) -> Json:
    """Returns the running and waiting turns and operations.

    Raises Unavailable, and SessionNotFound if the session was deleted or now belongs to another user. Either error
    cuts the stream.
    """
    async with api.resources.database.snapshot() as c:
        if session is not None:
            await sessions.get_session(c, session, caller)
        found = await tasks.unended_tasks(c, session or caller)
        ids = [task.id for task in found if task.kind is TaskKind.OPERATION]
        pending = await operations.shown_operations(c, ids, most=0)
    return {
        "type": "snapshot",
        "turns": [_turn(task) for task in found if task.is_turn and not task.request.temporary],
        "operations": [_operation(operation) for operation in pending.values() if operation.announced],
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
        **({"asks": operation.work.asks.kind.value} if operation.work.asks is not None and operation.pending else {}),
    }
