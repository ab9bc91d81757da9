"""Further routes that AutoGPT's page calls, so that it works with this server unchanged."""

from __future__ import annotations

from fastapi import APIRouter

from backend.api.deps import AppState, AsCaller, ASession
from backend.api.message_schemas import PendingCount, PendingMessage, PendingMessages
from backend.api.problems import responses
from backend.api.routes.sessions import BODY, MISSING, apply_changes
from backend.api.routes_base import CallerRoute, PostingRoute
from backend.api.schemas import ChatTransport, ChatTransports, Ok, SessionChange, SessionChanges, SessionPin
from backend.api.starting import check_no_files
from backend.api.stopping import publish_unless_stopped
from backend.api.user_message import UserMessage, check_text
from backend.chat.flows import start
from backend.chat.models import ContextPart, TaskKind, TurnRequest
from backend.chat.store import sessions, tasks
from backend.errors import NoActiveTurn

posting = APIRouter(route_class=PostingRoute)
router = APIRouter(tags=["AutoGPT"], route_class=CallerRoute, responses=responses(401, 413, 422, 503))


@router.patch("/sessions/{session_id}/title", responses={**BODY, **MISSING})
async def set_title(api: AppState, caller: AsCaller, session_id: ASession, change: SessionChange) -> Ok:
    """Sets the title of a session, as `PATCH /api/chat/sessions/{session_id}` does."""
    await apply_changes(api, caller, session_id, SessionChanges(title=change.title))
    return Ok()


@router.patch("/sessions/{session_id}/pinned", responses={**BODY, **MISSING})
async def set_pinned(api: AppState, caller: AsCaller, session_id: ASession, pin: SessionPin) -> Ok:
    """Pins a session, or ends that, as `PATCH /api/chat/sessions/{session_id}` does."""
    await apply_changes(api, caller, session_id, SessionChanges(is_pinned=pin.is_pinned))
    return Ok()


@router.delete("/sessions/{session_id}/stream", status_code=204, responses=MISSING)
async def leave_stream(api: AppState, caller: AsCaller, session_id: ASession) -> None:
    """Says that the page has left the session's stream. Has no effect, and does not stop the answer.

    The server sees by itself that a connection was closed. Other tabs go on reading.
    """
    async with api.resources.database.connection() as c:
        await sessions.get_session(c, session_id, caller)


@posting.post("/sessions/{session_id}/messages/pending", responses={**BODY, **MISSING, **responses(409, 429)})
async def queue_message(api: AppState, caller: AsCaller, session_id: ASession, new: PendingMessage) -> PendingCount:
    """Queues a message behind the session's running turn, as posting it to the session's stream does.

    Answers 409 `no_active_turn` if no turn is running.
    """
    resources = api.resources
    text = check_text(UserMessage(new.message), resources.settings).text
    check_no_files(new.file_ids)
    context = ContextPart(new.context.url, new.context.content) if new.context is not None else None
    async with resources.database.connection() as c:
        await sessions.get_session(c, session_id, caller)
        if await tasks.find_active_task(c, session_id) is None:
            raise NoActiveTurn
    started = await start.start_turn(
        resources, caller, session_id, TurnRequest(text, context=context), message_key=None
    )
    task = started.task
    if task.active:  # the running turn has just ended
        api.jobs.start(publish_unless_stopped(api, caller, task), name=f"publish {task.id}")
    async with resources.database.connection() as c:
        waiting = await tasks.queued_tasks(c, session_id)
    limit = resources.settings.max_waiting_turns
    return PendingCount(buffer_length=len(waiting), max_buffer_length=limit, turn_in_flight=not task.active)


@router.get("/sessions/{session_id}/messages/pending", responses=MISSING)
async def pending_messages(api: AppState, caller: AsCaller, session_id: ASession) -> PendingMessages:
    """Returns the texts of the messages that wait for the session's running turn. Each then starts a turn."""
    async with api.resources.database.connection() as c:
        await sessions.get_session(c, session_id, caller)
        waiting = await tasks.queued_tasks(c, session_id)
    requests = [task.request for task in waiting if task.kind is TaskKind.TURN]
    texts = [request.text for request in requests if request.text is not None and request.is_user_message]
    return PendingMessages(messages=texts, count=len(texts))


@router.get("/transports")
async def transports(caller: AsCaller) -> ChatTransports:
    """Returns the one connection to a model, which every session uses."""
    only = ChatTransport(
        auth_provider="platform", credential_id=None, label="Self-hosted chat", available=True, default=True
    )
    return ChatTransports(transports=[only])


router.include_router(posting)
