"""The AI SDK's own default routes, so that `useChat({id, resume: true})` works with no options at all."""

from __future__ import annotations

import re

import orjson
from fastapi import APIRouter, Request, Response

from backend.api.attaching import STREAM
from backend.api.deps import Accepts, ACursor, AKey, ASession, AsIdentity, AtDesk
from backend.api.desk import CallerRoute, too_large
from backend.api.json_body import load_conversation
from backend.api.problems import responses
from backend.api.routes.streams import POSTED, RESUMED, follow_session
from backend.api.schemas import ChatRequest, UIMessageIn
from backend.api.starting import check_text, start_and_stream
from backend.chat import messages, revisions, sessions, tasks
from backend.chat.models import ANSWER_ID, Caller, Json, TurnRequest
from backend.config import Settings
from backend.errors import EmptyMessage, MessageNotFound, UnsupportedPart, ValidationFailed
from backend.ids import SessionId, TaskId
from backend.postgres import Connection


class ChatRoute(CallerRoute):
    """The body holds the whole conversation; the limits of other bodies are those of its last message alone."""

    def body_limit(self, settings: Settings) -> int:
        return settings.max_chat_body_bytes

    def load(self, body: bytes, settings: Settings) -> Json:
        value = load_conversation(body)
        if len(body) > settings.max_body_bytes < len(orjson.dumps(value)):
            raise too_large(settings.max_body_bytes)
        return value


router = APIRouter(tags=["AI SDK"], route_class=ChatRoute, responses=responses(401, 413, 422, 429, 503))
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")


@router.post("", response_class=Response, responses={200: STREAM[200], **POSTED})
async def chat(desk: AtDesk, identity: AsIdentity, body: ChatRequest, key: AKey, accepts: Accepts) -> Response:
    """A message, an edit of one, or another answer to one; the answer is streamed."""
    session_id = SessionId(body.id)
    regenerate = body.trigger == "regenerate-message"
    if regenerate:
        async with desk.house.database.connection() as c:
            turn, message_key = await _regeneration(c, identity.caller, session_id, body), key
    else:
        turn, message_key = _submission(body, desk.house.settings, key)
    return await start_and_stream(
        desk,
        identity,
        session_id,
        turn,
        message_key=message_key,
        on_busy=body.on_busy,
        accepts=accepts,
        create_session=turn.revises is None,  # an edit never makes a conversation again that was deleted meanwhile
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


def _submission(body: ChatRequest, settings: Settings, key: str | None) -> tuple[TurnRequest, str | None]:
    """What to do, and by which key it is told apart: a message by its id, an edit of one by the request's key."""
    said = next((message for message in reversed(body.messages) if message.role == "user"), None)
    if said is None:
        raise EmptyMessage("There is no message of the user among `messages`.")
    text = check_text(_text_of(said), settings)
    message_id = _checked_id(said.id) or key
    turn = TurnRequest(text, message_id, revises=body.message_id or None)
    return turn, (key or message_id) if turn.revises is not None else message_id


async def _regeneration(c: Connection, caller: Caller, session_id: SessionId, body: ChatRequest) -> TurnRequest:
    await sessions.get_session(c, session_id, caller)
    asked = await _message_to_answer(c, session_id, body)
    if asked is None:
        raise MessageNotFound
    return TurnRequest(None, revises=asked)


async def _message_to_answer(c: Connection, session_id: SessionId, body: ChatRequest) -> str | None:
    """The user message that gets another answer: named by itself or by its answer, else the last one that was sent."""
    named = body.message_id or ""
    if named.startswith(ANSWER_ID):
        for task in await tasks.find_tasks(c, [TaskId(named.removeprefix(ANSWER_ID))]):
            if task.session_id == session_id and task.question_id is not None:
                return task.question_id
    last_sent = next((message.id for message in reversed(body.messages) if message.role == "user"), "")
    for message_id in filter(None, (named, last_sent)):
        if await messages.find_user_message(c, session_id, message_id) is not None:
            return message_id
        if await revisions.find_waiting(c, session_id, message_id) is not None:
            return message_id
    last = await messages.last_user_message(c, session_id)
    return last.shown_id if last is not None else None


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
