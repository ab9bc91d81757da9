"""Conversations: list, make, read, rename, take over, delete, cancel what runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from backend.api.deps import AsCaller, ASession, AtDesk
from backend.api.desk import CallerRoute
from backend.api.problems import responses
from backend.api.schemas import (
    ActiveStream,
    CancelOut,
    NewSession,
    Ok,
    OperationOut,
    QueuedTurn,
    SessionChange,
    SessionDetails,
    SessionList,
    SessionMade,
    SessionSummary,
    UsageOut,
    message_rows,
)
from backend.chat import cancelling, messages, operations, sessions, tasks
from backend.chat.feed import Hint
from backend.chat.models import Json, Message, Task, TaskKind
from backend.chat.silent_answers import silent_answers
from backend.chat.ui import ui_messages
from backend.errors import Unauthenticated, ValidationFailed
from backend.ids import SessionId, TaskId, new_session_id
from backend.postgres import Connection

router = APIRouter(
    prefix="/sessions", tags=["sessions"], route_class=CallerRoute, responses=responses(401, 413, 422, 503)
)
BODY = responses(400, 408, 415)
MISSING = responses(404)


@router.get("")
async def list_sessions(
    desk: AtDesk,
    caller: AsCaller,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    q: Annotated[str | None, Query(max_length=200, description="Search in titles.")] = None,
) -> SessionList:
    """The caller's sessions, newest first. An anonymous caller has no list: a session's id is the key to it."""
    if caller.user_id is None:
        return SessionList(sessions=[], total=0)
    async with desk.house.database.connection() as c:
        found, total = await sessions.list_sessions(c, caller.user_id, limit=limit, offset=offset, query=q or None)
    return SessionList(sessions=[SessionSummary.of(session) for session in found], total=total)


@router.post(
    "", status_code=201, responses={200: {"model": SessionMade, "description": "It was there."}, **BODY, **MISSING}
)
async def make_session(
    desk: AtDesk, caller: AsCaller, response: Response, wish: NewSession | None = None
) -> SessionMade:
    """Makes a session. With an id that the caller has already: 200, and nothing changes."""
    wish = wish or NewSession()
    session_id = SessionId(wish.id) if wish.id is not None else new_session_id()
    async with desk.house.database.connection() as c:
        session, new = await sessions.create_session(c, session_id, caller.user_id, wish.metadata or {})
    response.status_code = 201 if new else 200
    return SessionMade(id=session.id, created_at=session.created_at, user_id=session.user_id)


@router.get("/{session_id}", responses=MISSING, response_model_exclude_unset=True)
async def read_session(
    desk: AtDesk,
    caller: AsCaller,
    session_id: ASession,
    format: Annotated[Literal["rows", "ui"], Query(description="`ui`: AI SDK UIMessages.")] = "rows",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Messages below this sequence.")] = None,
) -> SessionDetails:
    """A session with its newest messages, and what runs and waits in it, all of one moment."""
    async with desk.house.database.snapshot() as c:
        session = await sessions.get_session(c, session_id, caller)
        active = await tasks.find_active_task(c, session_id)
        waiting = await tasks.queued_tasks(c, session_id)
        unended = await operations.unended_operations(c, session_id)
        usage = await tasks.session_usage(c, session_id)
        hidden = active.id if active is not None else None
        rows = await messages.visible_messages(c, session_id, limit=limit, before=before, without_task=hidden)
        more = len(rows) == limit
        if format == "ui":
            rows = await _with_whole_beginning(c, rows, active)
            shown = await _ui_page(c, session_id, rows, active, newest=before is None)
        else:
            shown = message_rows(rows)
    known: dict[str, Any] = {"active_stream": ActiveStream.of(active)} if active is not None else {}
    if more:
        known["older"] = rows[0].sequence
    return SessionDetails(
        id=session.id,
        created_at=session.created_at,
        updated_at=session.updated_at,
        user_id=session.user_id,
        title=session.title,
        metadata=session.metadata,
        messages=shown,
        queued=[QueuedTurn.of(task) for task in waiting if task.kind is TaskKind.TURN],
        operations=[OperationOut.of(operation) for operation in unended if operation.announced],
        usage=UsageOut.of(usage),
        **known,
    )


async def _with_whole_beginning(c: Connection, rows: list[Message], active: Task | None) -> list[Message]:
    """UI messages are whole: the first task of a page brings the rows of it that the page cut off."""
    if not rows or (active is not None and rows[0].task_id == active.id):
        return rows
    visible_from = rows[0].sequence
    of_first = await messages.messages_of_task(c, rows[0].task_id)
    return [row for row in of_first if row.sequence < visible_from] + rows


async def _ui_page(
    c: Connection, session_id: SessionId, rows: list[Message], active: Task | None, *, newest: bool
) -> list[Json]:
    task_ids: list[TaskId] = list(dict.fromkeys(row.task_id for row in rows))
    found = await tasks.find_tasks(c, task_ids)
    silent = await silent_answers(c, session_id)
    known = await operations.operations_of_tasks(c, [task.id for task in found if task.kind is TaskKind.OPERATION])
    again = newest and active is not None and active.request.text is None
    return ui_messages(rows, {task.id: task for task in found}, silent, known, answering_again=again)


@router.patch("/{session_id}", responses={**BODY, **MISSING})
async def rename_session(desk: AtDesk, caller: AsCaller, session_id: ASession, change: SessionChange) -> SessionSummary:
    """Gives a session its title."""
    title = " ".join(change.title.split())
    if not title:
        raise ValidationFailed("The title has no text.")
    async with desk.house.database.transaction() as c:
        await sessions.get_session(c, session_id, caller, lock=True)
        await sessions.set_title(c, session_id, title)
        session = await sessions.get_session(c, session_id, caller)
    desk.house.feed.tell(Hint.TITLE_CHANGED, session_id, session.user_id, title=title)
    return SessionSummary.of(session)


@router.delete("/{session_id}", status_code=204, responses=MISSING)
async def delete_session(desk: AtDesk, caller: AsCaller, session_id: ASession) -> None:
    """Cancels what runs, waits for it at most 5 s, and deletes the session with all that belongs to it."""
    await cancelling.delete_session(desk.house, caller, session_id)


@router.patch("/{session_id}/assign-user", responses=MISSING)
async def assign_user(desk: AtDesk, caller: AsCaller, session_id: ASession) -> Ok:
    """An anonymous session becomes the caller's."""
    if caller.user_id is None:
        raise Unauthenticated
    async with desk.house.database.transaction() as c:
        await sessions.assign_user(c, session_id, caller.user_id)
    return Ok(status="ok")


@router.post("/{session_id}/cancel", responses=MISSING, response_model_exclude_none=True)
async def cancel_session(desk: AtDesk, caller: AsCaller, session_id: ASession) -> CancelOut:
    """Cancels the turn that runs. Waits at most 5 s for the executor to confirm."""
    async with desk.house.database.connection() as c:
        await sessions.get_session(c, session_id, caller)
        active = await tasks.find_active_task(c, session_id)
    if active is None:
        return CancelOut(cancelled=False, reason="no_active_task")
    return CancelOut.model_validate(await cancelling.cancel_task(desk.house, active), from_attributes=True)
