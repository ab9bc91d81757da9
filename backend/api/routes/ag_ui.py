"""AG-UI 1.0, for `@ag-ui/client` and the frontends that use it. A thread is a session, a run answers a message.

A run whose connection was lost is continued by the same request with the id of its last event as `Last-Event-ID`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar

from fastapi import APIRouter, Request, Response

from backend.api.ag_ui_schemas import RunInput
from backend.api.attaching import attach_task, attached_or_from_rows, slot_for
from backend.api.auth import Identity
from backend.api.deps import ACursor, AppState, ASession, AsIdentity
from backend.api.history import read_history
from backend.api.open_streams import StreamSlot, Viewer
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.sse import EventStream, Frames
from backend.api.starting import publish
from backend.api.state import ApiState
from backend.api.user_message import UserMessage, check_text
from backend.chat.flows import start
from backend.chat.models import Task, TurnRequest
from backend.chat.protocol.renderings.ag_ui_events import Event, ThreadRun, as_ag_ui_stream, frame_of, snapshot_of
from backend.chat.store import branches, sessions, tasks
from backend.config import Settings
from backend.errors import CursorExpired, NothingLeft, TaskExpired, TokenExpired
from backend.ids import SessionId, StreamId

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events of AG-UI, as server-sent events.", "content": {"text/event-stream": {"schema": {}}}},
    204: {"description": "The client has the whole run."},
}
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")
SHOWN = 100
"""Rows of a conversation that a snapshot is made from."""


class AgUiRoute(CallerRoute):
    """A route whose body holds a whole thread."""

    max_values = 50_000

    def body_limit(self, settings: Settings) -> int:
        return settings.max_chat_body_bytes


class AgUiStream(EventStream):
    """Streams a task as events of AG-UI, after the events `before`."""

    protocol_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, open_frames: Callable[[], Awaitable[Frames]], run: ThreadRun, before: Iterable[Event] = (), **kwargs: Any
    ) -> None:
        async def rendered() -> Frames:
            return as_ag_ui_stream(await open_frames(), run, before)

        super().__init__(rendered, **kwargs)

    def expired_frames(self) -> bytes:
        error = TokenExpired()
        return frame_of({"type": "RUN_ERROR", "message": error.detail, "code": error.code})


router = APIRouter(prefix="/ag-ui", tags=["AG-UI"], route_class=AgUiRoute, responses=responses(401, 413, 422, 429, 503))


@router.post("", response_class=Response, responses={**_EVENTS, **responses(400, 404, 408, 409, 410, 415)})
async def run_agent(api: AppState, identity: AsIdentity, body: RunInput, cursor: ACursor) -> Response:
    """Sends the last message of a thread and streams the answer. The thread's session is created if it is new.

    A message with a known id gets the stream of its turn. With `Last-Event-ID`, nothing is sent: the rest of the run to
    which that event belongs is streamed.
    """
    body.check_supported()
    session_id, question = SessionId(body.thread_id), body.question
    run = ThreadRun(session_id, body.run_id)
    if cursor is not None:
        return await _resume(api, identity, run, cursor)
    said = check_text(UserMessage(question.text), api.resources.settings)
    message_id = question.id if _PRINTABLE.fullmatch(question.id) else None
    with api.arrivals.arriving(session_id), slot_for(api, identity, "POST") as slot:
        started = await start.start_turn(
            api.resources,
            identity.caller,
            session_id,
            TurnRequest(said.text, message_id, body.page, choice=body.choice),
            message_key=message_id,
            create_session=True,
            on_create=lambda: api.new_sessions.count(identity.caller.quota_key),
        )
        task = started.task
        if slot is not None:
            slot.subject = task.id
        publish(api, identity.caller, started)
        return _stream(api, identity, task, lambda: attached_or_from_rows(api, task, frozenset()), run, slot)


async def _resume(api: ApiState, identity: Identity, run: ThreadRun, cursor: StreamId) -> Response:
    """Streams the rest of the cursor's task. Starts nothing. Raises SessionNotFound and CursorExpired."""
    session_id = SessionId(run.thread_id)
    async with api.resources.database.connection() as c:
        await sessions.get_session(c, session_id, identity.caller)
        task = await tasks.find_task_by_number(c, session_id, cursor.task_number)
    if task is None:
        raise CursorExpired
    with slot_for(api, identity, "POST", task.id) as slot:
        try:
            frames = await attach_task(api, task, cursor, frozenset())
        except NothingLeft:
            return Response(status_code=204)
        except TaskExpired:
            raise CursorExpired from None

        async def ready() -> Frames:
            return frames

        return _stream(api, identity, task, ready, run, slot)


@router.head("/{session_id}", include_in_schema=False)
@router.get("/{session_id}", response_class=Response, responses={200: _EVENTS[200], **responses(404)})
async def follow_thread(request: Request, api: AppState, identity: AsIdentity, session_id: ASession) -> Response:
    """Streams a snapshot of the thread's newest messages, then the running answer from its start, if one runs."""
    async with api.resources.database.snapshot() as c:
        await sessions.get_session(c, session_id, identity.caller)
        running = await tasks.find_active_task(c, session_id)
        active = running if running is not None and await branches.is_task_on_current(c, running) else None
        page = await read_history(c, session_id, active, ui=True, limit=SHOWN, before=None)
    run = ThreadRun(session_id, f"thread-{session_id}" if active is None else active.id)
    before = [run.started(), snapshot_of(page.messages)]
    with slot_for(api, identity, request.method, session_id) as slot:
        if active is None:
            return _stream(api, identity, None, _nothing, run, slot, [*before, run.finished({})])
        task = active
        return _stream(api, identity, task, lambda: attached_or_from_rows(api, task, frozenset()), run, slot, before)


def _stream(
    api: ApiState,
    identity: Identity,
    task: Task | None,
    open_frames: Callable[[], Awaitable[Frames]],
    run: ThreadRun,
    slot: StreamSlot | None,
    before: Iterable[Event] = (),
) -> Response:
    return AgUiStream(
        open_frames,
        run,
        before,
        slot=slot,
        open_streams=api.open_streams,
        task_id=None if task is None else task.id,
        expires_at=identity.expires_at,
        viewer=Viewer(SessionId(run.thread_id), identity.caller.user_id),
    )


async def _nothing() -> Frames:
    async def frames() -> Frames:
        for frame in tuple[bytes, ...]():
            yield frame

    return frames()
