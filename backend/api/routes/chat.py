"""The AI SDK's own default routes, so that `useChat({id, resume: true})` works with no options at all."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from backend.api.attaching import STREAM, attach_response, seat_for
from backend.api.auth import Identity
from backend.api.deps import Accepts, ACursor, AKey, ASession, AsIdentity, AtDesk
from backend.api.desk import CallerRoute, Desk
from backend.api.problems import responses
from backend.api.routes.streams import POSTED, RESUMED, follow_session
from backend.api.schemas import ChatRequest, UIMessageIn
from backend.api.starting import check_text, start_and_stream
from backend.chat import messages, sessions, tasks
from backend.chat.models import Caller, Message, TurnRequest
from backend.config import Settings
from backend.errors import EmptyMessage, MessageNotFound, SessionNotFound, UnsupportedPart, ValidationFailed
from backend.ids import SessionId, TaskId
from backend.postgres import Connection

router = APIRouter(tags=["AI SDK"], route_class=CallerRoute, responses=responses(401, 413, 422, 429, 503))
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")
_ANSWER_ID = "msg_"


@router.post("", response_class=Response, responses={200: STREAM[200], **POSTED})
async def chat(desk: AtDesk, identity: AsIdentity, body: ChatRequest, key: AKey, accepts: Accepts) -> Response:
    """A message, an edit of one, or another answer to one; the answer is streamed."""
    session_id = SessionId(body.id)
    regenerate = body.trigger == "regenerate-message"
    async with desk.house.database.connection() as c:
        if regenerate:
            turn, message_key = await _regeneration(c, identity.caller, session_id, body, key)
        else:
            said = _last_said(body, desk.house.settings)
            named = await _named_message(c, identity.caller, session_id, body.message_id)
            if named is not None and named.text == said.text:  # a retry; after an edit its key was not the message's
                return await _attach_again(desk, identity, named.task_id, accepts)
            turn, message_key = _submission(said, named, key)
    return await start_and_stream(
        desk,
        identity,
        session_id,
        turn,
        message_key=message_key,
        on_busy=body.on_busy,
        accepts=accepts,
        create_session=not regenerate,
    )


@router.head("/{session_id}/stream", include_in_schema=False)
@router.get("/{session_id}/stream", response_class=Response, responses=RESUMED)
async def resume_chat(
    request: Request,
    desk: AtDesk,
    identity: AsIdentity,
    session_id: ASession,
    cursor: ACursor,
    accepts: Accepts,
) -> Response:
    """The same as `GET /sessions/{id}/stream`."""
    return await follow_session(request, desk, identity, session_id, cursor, accepts)


async def _attach_again(desk: Desk, identity: Identity, task_id: TaskId, accepts: frozenset[str]) -> Response:
    async with desk.house.database.connection() as c:
        task = await tasks.get_task(c, task_id, identity.caller)
    with seat_for(desk, identity, "POST") as seat:
        return await attach_response(desk, identity, task, None, accepts, seat)


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    message_id: str | None


def _last_said(body: ChatRequest, settings: Settings) -> _Said:
    said = next((message for message in reversed(body.messages) if message.role == "user"), None)
    if said is None:
        raise EmptyMessage
    return _Said(check_text(_text_of(said), settings), _checked_id(said.id))


def _submission(said: _Said, named: Message | None, key: str | None) -> tuple[TurnRequest, str | None]:
    """What to do, and by which key it is told apart. A message that names an earlier one, with other text, edits it."""
    if named is not None:
        digest = hashlib.sha256(said.text.encode()).hexdigest()[:16]
        turn = TurnRequest(said.text, named.message_id, supersedes=named.sequence)
        return turn, key or f"edit:{named.sequence}:{digest}"
    message_id = said.message_id or key
    return TurnRequest(said.text, message_id), message_id


async def _named_message(
    c: Connection, caller: Caller, session_id: SessionId, message_id: str | None
) -> Message | None:
    if not message_id:
        return None
    try:
        await sessions.get_session(c, session_id, caller)
    except SessionNotFound:  # a new session; starting the turn makes it, or says that it is another's
        return None
    return await messages.find_user_message(c, session_id, message_id)


async def _regeneration(
    c: Connection, caller: Caller, session_id: SessionId, body: ChatRequest, key: str | None
) -> tuple[TurnRequest, str | None]:
    await sessions.get_session(c, session_id, caller)
    asked = await _message_to_answer(c, session_id, body)
    if asked is None:
        raise MessageNotFound
    return TurnRequest(None, supersedes=asked.sequence + 1), key


async def _message_to_answer(c: Connection, session_id: SessionId, body: ChatRequest) -> Message | None:
    """The user message that gets another answer: named by itself or by its answer, else the last one that was sent."""
    named = body.message_id or ""
    if named.startswith(_ANSWER_ID):
        rows = await messages.messages_of_task(c, TaskId(named.removeprefix(_ANSWER_ID)))
        if rows and rows[0].session_id == session_id:
            return await messages.last_user_message(c, session_id, at_or_before=rows[0].sequence)
    last_sent = next((message.id for message in reversed(body.messages) if message.role == "user"), "")
    for message_id in (named, last_sent):
        if message_id and (found := await messages.find_user_message(c, session_id, message_id)) is not None:
            return found
    return await messages.last_user_message(c, session_id)


def _text_of(message: UIMessageIn) -> str:
    texts = []
    for part in message.parts:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise UnsupportedPart(f"A message may hold text only, not {str(part.get('type'))[:40]!r}.")
        texts.append(part["text"])
    return "".join(texts)


def _checked_id(message_id: str) -> str | None:
    if message_id and _PRINTABLE.fullmatch(message_id) is None:
        raise ValidationFailed("A message id is 1 to 255 printable ASCII characters.")
    return message_id or None
