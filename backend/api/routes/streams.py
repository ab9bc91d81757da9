"""A session's turns: post a message and read its answer, come back to an answer that runs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from backend.api.attaching import STREAM, attach_response, seat_for
from backend.api.auth import Identity
from backend.api.deps import Accepts, ACursor, AKey, ASession, AsIdentity, AtDesk
from backend.api.desk import CallerRoute, Desk, ServiceRoute
from backend.api.problems import responses
from backend.api.schemas import NewTurn
from backend.api.starting import check_text, start_and_stream
from backend.chat import sessions, tasks
from backend.chat.models import Caller, ContextPart, Task, TurnRequest
from backend.errors import CursorExpired, Forbidden, SessionNotFound, Unauthenticated
from backend.ids import SessionId, StreamId

router = APIRouter(tags=["streams"], route_class=CallerRoute, responses=responses(401, 413, 422, 429, 503))
posting = APIRouter(route_class=ServiceRoute)
POSTED: dict[int | str, dict[str, Any]] = {200: STREAM[200], **responses(400, 404, 408, 409, 410, 415)}
RESUMED = {**STREAM, **responses(400, 410)}


@posting.post("/sessions/{session_id}/stream", response_class=Response, responses={**POSTED, **responses(403)})
async def post_message(
    request: Request,
    desk: AtDesk,
    identity: AsIdentity,
    session_id: ASession,
    turn: NewTurn,
    key: AKey,
    accepts: Accepts,
) -> Response:
    """Sends a message; the answer is streamed. The same message id again: the stream of the turn that exists.

    A service (`X-API-Key`, no token needed) sends notes, `is_user_message=false`, to any session: the model reads them,
    the conversation does not show them, and the turn counts to the session's owner.
    """
    text = check_text(turn.message, desk.house.settings)
    owner = await _owner_for(request, desk, identity, session_id) if not turn.is_user_message else None
    if owner is None and identity.caller.user_id is None and desk.house.settings.auth_mode == "required":
        raise Unauthenticated
    context = ContextPart(turn.context.url, turn.context.content) if turn.context is not None else None
    message_id = turn.message_id or key
    return await start_and_stream(
        desk,
        identity,
        session_id,
        TurnRequest(text, message_id, context, turn.is_user_message),
        message_key=message_id,
        on_busy=turn.on_busy,
        accepts=accepts,
        owner=owner,
    )


async def _owner_for(request: Request, desk: Desk, identity: Identity, session_id: SessionId) -> Caller:
    """As whom a service writes into a session."""
    if not desk.service_keys.valid(request.headers):
        raise Forbidden("is_user_message=false needs a service key.")
    async with desk.house.database.connection() as c:
        return Caller(await sessions.owner_of(c, session_id), identity.caller.address)


@router.head("/sessions/{session_id}/stream", include_in_schema=False)
@router.get("/sessions/{session_id}/stream", response_class=Response, responses=RESUMED)
async def follow_session(
    request: Request,
    desk: AtDesk,
    identity: AsIdentity,
    session_id: ASession,
    cursor: ACursor,
    accepts: Accepts,
) -> Response:
    """The answer that runs, whole; with a cursor, the task that the cursor names from there on, ended or not."""
    task = await _task_to_follow(desk, identity.caller, session_id, cursor)
    if task is None:
        return Response(status_code=204)
    with seat_for(desk, identity, request.method) as seat:
        return await attach_response(desk, identity, task, cursor, accepts, seat)


async def _task_to_follow(desk: Desk, caller: Caller, session_id: SessionId, cursor: StreamId | None) -> Task | None:
    """None when nothing runs, or there is no such session: the AI SDK asks before its first message."""
    async with desk.house.database.connection() as c:
        try:
            await sessions.get_session(c, session_id, caller)
        except SessionNotFound:
            return None
        if cursor is None:
            return await tasks.find_active_task(c, session_id)
        task = await tasks.find_task_by_number(c, session_id, cursor.task_number)
    if task is None:
        raise CursorExpired
    return task


router.include_router(posting)
