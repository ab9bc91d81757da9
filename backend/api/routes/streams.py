"""The streams of a session: post a message and read its answer, or resume a running answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from backend.api.attaching import STREAM, attach_response, slot_for
from backend.api.auth import Identity
from backend.api.deps import Accepts, ACursor, AKey, AppState, ASession, AsIdentity
from backend.api.file_storing import files_of
from backend.api.message_schemas import NewTurn, Steered
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute, PostingRoute, ServiceRoute
from backend.api.starting import choice_in, start_and_stream
from backend.api.state import ApiState
from backend.api.user_message import UserMessage, check_text, named_files
from backend.chat.models import After, Caller, ContextPart, Task, TurnRequest
from backend.chat.store import branches, sessions, tasks
from backend.errors import CursorExpired, Forbidden, SessionNotFound, Unauthenticated
from backend.ids import SessionId, StreamId


class NoteRoute(PostingRoute, ServiceRoute):
    """A route that takes a message of a user, or a note of a service."""


router = APIRouter(tags=["streams"], route_class=CallerRoute, responses=responses(401, 413, 422, 429, 503))
posting = APIRouter(route_class=NoteRoute)
POSTED: dict[int | str, dict[str, Any]] = {
    200: STREAM[200],
    202: {"description": "The running turn takes the message in (`on_busy: steer`).", "model": Steered},
    **responses(400, 404, 408, 409, 410, 415),
}
RESUMED = {**STREAM, **responses(400, 410)}


@posting.post("/sessions/{session_id}/stream", response_class=Response, responses={**POSTED, **responses(403)})
async def post_message(
    request: Request,
    api: AppState,
    identity: AsIdentity,
    session_id: ASession,
    turn: NewTurn,
    key: AKey,
    accepts: Accepts,
) -> Response:
    """Sends a message and streams the answer. A known message id returns the stream of the existing turn.

    A service may send a note (`is_user_message` is false) to any session with an `X-API-Key`; it needs no token. The
    model reads the note, the conversation does not show it, and the turn counts to the session's owner.
    """
    given = UserMessage(turn.message, metadata=turn.metadata, files=named_files(turn.file_ids))
    said = check_text(given, api.resources.settings)
    owner = await _owner_for(request, api, identity, session_id) if not turn.is_user_message else None
    if owner is None and identity.caller.user_id is None and api.resources.settings.auth_mode == "required":
        raise Unauthenticated
    context = ContextPart(turn.context.url, turn.context.content) if turn.context is not None else None
    message_id = turn.message_id or turn.idempotency_key or key
    files = await files_of(api, owner or identity.caller, session_id, said.files, message_id) if said.files else ()
    return await start_and_stream(
        api,
        identity,
        session_id,
        TurnRequest(
            said.text,
            message_id,
            context,
            turn.is_user_message,
            metadata=said.metadata,
            files=files,
            choice=choice_in(api, turn),
        ),
        message_key=message_id,
        on_busy=turn.on_busy,
        accepts=accepts,
        owner=owner,
        after=After.parent(turn.parent) if turn.parent is not None else None,
        page_tools=turn.page_tools,
    )


async def _owner_for(request: Request, api: ApiState, identity: Identity, session_id: SessionId) -> Caller:
    """Returns the owner of the session, if the request has a service key. Raises Forbidden otherwise."""
    if not api.service_keys.valid(request.headers):
        raise Forbidden("A note (`is_user_message` is false) needs a service key.")
    async with api.resources.database.connection() as c:
        return Caller(await sessions.owner_of(c, session_id), identity.caller.address)


@router.head("/sessions/{session_id}/stream", include_in_schema=False)
@router.get("/sessions/{session_id}/stream", response_class=Response, responses=RESUMED)
async def follow_session(
    request: Request,
    api: AppState,
    identity: AsIdentity,
    session_id: ASession,
    cursor: ACursor,
    accepts: Accepts,
) -> Response:
    """Streams the running answer from its start. With a cursor, streams the cursor's task after the cursor.

    That task may have ended. Answers 204 if nothing is running, or if there is no such session.
    """
    task = await _task_to_follow(api, identity.caller, session_id, cursor)
    if task is None:
        return Response(status_code=204)
    with slot_for(api, identity, request.method, task.id) as slot:
        return await attach_response(api, identity, task, cursor, accepts, slot)


async def _task_to_follow(api: ApiState, caller: Caller, session_id: SessionId, cursor: StreamId | None) -> Task | None:
    """Returns None if nothing runs on the current branch, or the session does not exist.

    The AI SDK asks before its first message. Raises CursorExpired if the cursor's task no longer exists.
    """
    async with api.resources.database.snapshot() as c:
        try:
            await sessions.get_session(c, session_id, caller)
        except SessionNotFound:
            return None
        if cursor is None:
            active = await tasks.find_active_task(c, session_id)
            return active if active is not None and await branches.is_task_on_current(c, active) else None
        task = await tasks.find_task_by_number(c, session_id, cursor.task_number)
    if task is None:
        raise CursorExpired
    return task


router.include_router(posting)
