"""Sessions: list, create, read, rename, assign to a user, delete, cancel the running turn."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Query, Response

from backend.api.deps import Accepts, AppState, AsCaller, ASession, Limit, Offset
from backend.api.history import read_history
from backend.api.message_schemas import QueuedTurn
from backend.api.operation_schemas import OperationOut
from backend.api.problems import responses
from backend.api.routes.instructions import check_enabled
from backend.api.routes_base import CallerRoute
from backend.api.schema_base import MessageIdField
from backend.api.schemas import (
    ActiveStream,
    BranchesOut,
    CancelOut,
    Leaf,
    LeafOut,
    NewSession,
    Ok,
    SessionChanges,
    SessionDetails,
    SessionList,
    SessionMade,
    SessionSummary,
    UsageOut,
)
from backend.api.state import ApiState
from backend.api.stopping import stop_message, stop_session
from backend.chat.flows import delete, switch
from backend.chat.models import Caller, Json, Session, TaskKind
from backend.chat.protocol.approval_requests import APPROVAL_REQUESTS, ui_with_approval_requests
from backend.chat.protocol.page_tools import PAGE_TOOLS, ui_with_page_tools
from backend.chat.protocol.static_tools import STATIC_TOOLS, ui_with_static_tools
from backend.chat.protocol.steering_messages import STEERING_MESSAGES, ui_with_steering_messages
from backend.chat.store import branches, business_profile, instructions, operations, sessions, tasks
from backend.chat.store.conversations import folders
from backend.chat.streams.event_feed import Hint
from backend.errors import FolderNotFound, Unauthenticated, ValidationFailed
from backend.ids import SessionId, new_session_id

router = APIRouter(
    prefix="/sessions", tags=["sessions"], route_class=CallerRoute, responses=responses(401, 413, 422, 503)
)
BODY = responses(400, 408, 415)
Format: TypeAlias = Annotated[
    Literal["rows", "ui"], Query(description="The form of `messages`: stored rows, or AI SDK UIMessages (`ui`).")
]
MessageLimit: TypeAlias = Annotated[int, Query(ge=1, le=500, description="The largest number of messages to return.")]
Before: TypeAlias = Annotated[
    int | None,
    Query(
        ge=1,
        le=2**31 - 1,
        description="Returns only messages with a lower sequence number. `older` of a response is the next value.",
    ),
]
BeforeSequence: TypeAlias = Annotated[int | None, Query(ge=0, le=2**31 - 1, description="The same as `before`.")]
MISSING = responses(404)


@router.get("")
async def list_sessions(
    api: AppState,
    caller: AsCaller,
    limit: Limit = 50,
    offset: Offset = 0,
    q: Annotated[
        str | None, Query(max_length=200, description="Returns only sessions with this text in their title.")
    ] = None,
    archived: Annotated[bool, Query(description="Returns archived sessions instead of the others.")] = False,
    folder_id: Annotated[str | None, Query(max_length=64, description="Returns only sessions in this folder.")] = None,
) -> SessionList:
    """Lists the caller's sessions: pinned ones first, then last updated first.

    The list of an anonymous caller is empty; anonymous sessions are reached by their ids only.
    """
    if caller.user_id is None:
        return SessionList(sessions=[], total=0)
    async with api.resources.database.connection() as c:
        found, total = await sessions.list_sessions(
            c, caller.user_id, limit=limit, offset=offset, query=q or None, archived=archived, folder=folder_id
        )
        running = await tasks.sessions_with_active_task(c, [session.id for session in found])
    return SessionList(
        sessions=[SessionSummary.of(session, running=session.id in running) for session in found], total=total
    )


@router.post(
    "",
    responses={
        201: {"model": SessionMade, "description": "A session with the given id was created."},
        **BODY,
        **MISSING,
        **responses(403, 429),
    },
)
async def make_session(
    api: AppState, caller: AsCaller, response: Response, new_session: NewSession | None = None
) -> SessionMade:
    """Creates a session. If the caller already has a session with this id, changes nothing.

    Answers 201 if a session with the id of the request was created. Without an id every session is new; the answer is
    200 then, since AutoGPT's page takes any other status for a failure.
    """
    wanted = new_session or NewSession()
    if wanted.instructions:
        check_enabled(api)
    session_id = SessionId(wanted.id) if wanted.id is not None else new_session_id()
    async with api.resources.database.transaction() as c:
        created = await sessions.create_session(c, session_id, caller.user_id, wanted.metadata or {})
        if created.is_new:
            api.new_sessions.count(caller.quota_key)
            if wanted.instructions:
                await instructions.set_session_instructions(c, session_id, wanted.instructions)
    response.status_code = 201 if created.is_new and wanted.id is not None else 200
    session = created.session
    return SessionMade(id=session.id, created_at=session.created_at, user_id=session.user_id)


@router.get("/{session_id}", responses=MISSING, response_model_exclude_unset=True)
async def read_session(
    api: AppState,
    caller: AsCaller,
    session_id: ASession,
    accepts: Accepts,
    format: Format = "rows",
    limit: MessageLimit = 100,
    before: Before = None,
    before_sequence: BeforeSequence = None,
) -> SessionDetails:
    """Returns a session with its newest messages, running and waiting turns, operations and usage, at one moment.

    There are fewer messages than `limit` if more would have over 1 MiB as JSON. Long outputs of tools are cut, and name
    the address of the whole (`whole`).
    """
    if before is not None and before_sequence is not None:
        raise ValidationFailed("`before` and `before_sequence` mean the same; send one of them.")
    before = before if before is not None else before_sequence
    async with api.resources.database.snapshot() as c:
        session = await sessions.get_session(c, session_id, caller)
        told = await instructions.instructions_of(c, session_id)
        running = await tasks.find_active_task(c, session_id)
        active = running if running is not None and await branches.is_task_on_current(c, running) else None
        waiting = await tasks.queued_tasks(c, session_id)
        unended = await operations.unended_operations(c, session_id)
        usage = await tasks.session_usage(c, session_id)
        page = await read_history(c, session_id, active, ui=format == "ui", limit=limit, before=before)
    if page.orphans:
        await switch.adopt_branches(api.resources, session_id)
        async with api.resources.database.snapshot() as c:
            page = await read_history(c, session_id, active, ui=format == "ui", limit=limit, before=before)
    shown = _in_form_of(page.messages, accepts) if format == "ui" else page.messages
    models = api.resources.settings.models
    model = models.find(session.choice.model) or models.default
    optional: dict[str, Any] = {"active_stream": ActiveStream.of(active)} if active is not None else {}
    if page.older:
        optional["older"] = page.first
    return SessionDetails(
        id=session.id,
        created_at=session.created_at,
        updated_at=session.updated_at,
        user_id=session.user_id,
        title=session.title,
        is_pinned=session.pinned,
        is_archived=session.archived,
        folder_id=session.folder_id,
        metadata=session.metadata,
        messages=shown,
        has_more_messages=page.older,
        oldest_sequence=page.first,
        chat_status="running" if running is not None else "idle",
        instructions=told.session,
        model=model.id,
        effort=session.choice.effort if model.knows(session.choice.effort) else None,
        total_prompt_tokens=usage.input_tokens,
        total_completion_tokens=usage.output_tokens,
        queued=[QueuedTurn.of(task, running) for task in waiting if task.kind is TaskKind.TURN],
        branches=[BranchesOut.of(one) for one in page.branches],
        operations=[OperationOut.of(operation) for operation in unended if operation.announced],
        usage=UsageOut.of(usage),
        **optional,
    )


def _in_form_of(shown: list[Json], accepts: frozenset[str]) -> list[Json]:
    if STATIC_TOOLS in accepts:
        shown = ui_with_static_tools(shown)
    if PAGE_TOOLS in accepts:
        shown = ui_with_page_tools(shown)
    if STEERING_MESSAGES in accepts:
        shown = ui_with_steering_messages(shown)
    return ui_with_approval_requests(shown) if APPROVAL_REQUESTS in accepts else shown


@router.patch("/{session_id}", responses={**BODY, **MISSING, **responses(403)})
async def change_session(
    api: AppState, caller: AsCaller, session_id: ASession, changes: SessionChanges
) -> SessionSummary:
    """Sets the title of a session, its place in the list, or its instructions, which hold from the next turn on.

    Answers 404 `folder_not_found` if the caller has no such folder.
    """
    session, running = await apply_changes(api, caller, session_id, changes)
    return SessionSummary.of(session, running=running)


async def apply_changes(
    api: ApiState, caller: Caller, session_id: SessionId, changes: SessionChanges
) -> tuple[Session, bool]:
    """Makes all changes or none. Returns the session, and whether a turn is running in it. Raises ValidationFailed."""
    title = None if changes.title is None else " ".join(changes.title.split())
    if title == "":
        raise ValidationFailed("The title has no text.")
    if changes.instructions:
        check_enabled(api)
    async with api.resources.database.transaction() as c:
        await sessions.get_session(c, session_id, caller, lock=True)
        if changes.instructions is not None:
            await instructions.set_session_instructions(c, session_id, changes.instructions)
        if title is not None:
            await sessions.set_title(c, session_id, title)
        if changes.moves:
            await sessions.pin_or_archive(c, session_id, pinned=changes.is_pinned, archived=changes.is_archived)
        if changes.folder_id is not None:
            if caller.user_id is None:
                raise FolderNotFound
            await folders.put_into(c, caller.user_id, session_id, changes.folder_id or None)
        session = await sessions.get_session(c, session_id, caller)
        active = await tasks.find_active_task(c, session_id)
    feed, owner = api.resources.feed, session.user_id
    if title is not None:
        feed.publish(Hint.TITLE_CHANGED, session_id, owner, title=title)
    if changes.moves:
        place = {"is_pinned": session.pinned, "is_archived": session.archived, "folder_id": session.folder_id}
        feed.publish(Hint.PLACE_CHANGED, session_id, owner, **place)
    return session, active is not None


@router.delete("/{session_id}", status_code=204, responses=MISSING)
async def delete_session(api: AppState, caller: AsCaller, session_id: ASession) -> None:
    """Cancels the session's tasks, waits up to 5 s for them to end, and deletes the session with everything in it."""
    await delete.delete_session(api.resources, caller, session_id)


@router.post("/{session_id}/leaf", responses={**BODY, **MISSING})
async def switch_branch(api: AppState, caller: AsCaller, session_id: ASession, leaf: Leaf) -> LeafOut:
    """Switches to the newest branch that contains the message. A running turn continues on its own branch."""
    return LeafOut(message_id=await switch.switch_branch(api.resources, caller, session_id, leaf.message_id))


@router.patch("/{session_id}/assign-user", responses=MISSING)
async def assign_user(api: AppState, caller: AsCaller, session_id: ASession) -> Ok:
    """Assigns an anonymous session to the caller, with the facts that were told in it.

    Streams that others have open end. Does nothing if the session is already the caller's.
    """
    if caller.user_id is None:
        raise Unauthenticated
    async with api.resources.database.transaction() as c:
        await sessions.assign_user(c, session_id, caller.user_id)
        await business_profile.assign_understanding(c, session_id, caller.user_id)
    api.resources.feed.announce_assigned(session_id)
    return Ok(status="ok")


@router.post("/{session_id}/cancel", responses=MISSING, response_model_exclude_none=True)
async def cancel_session(
    api: AppState,
    caller: AsCaller,
    session_id: ASession,
    message_id: Annotated[
        MessageIdField | None,
        Query(
            description="Cancels the turns of this user message, or of the one to which this answer belongs, even if "
            "the message has not arrived yet."
        ),
    ] = None,
) -> CancelOut:
    """Cancels the running turn and waits up to 5 s for it to end. The next waiting turn then starts.

    If nothing runs, waits a moment for a message that this request may have overtaken.
    """
    if message_id is not None:
        cancelled = await stop_message(api, caller, session_id, message_id)
    else:
        cancelled = await stop_session(api, caller, session_id)
    return CancelOut.model_validate(cancelled, from_attributes=True)
