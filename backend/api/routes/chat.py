"""The default routes of the AI SDK. `useChat({id, resume: true})` works with them without further options."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import orjson
from fastapi import APIRouter, Request, Response

from backend.api.attaching import STREAM
from backend.api.deps import Accepts, AKey, AppState, AsIdentity
from backend.api.file_storing import files_of
from backend.api.json_body import load_conversation
from backend.api.message_schemas import ChatRequest, UIMessageIn
from backend.api.part_answers import answer_and_stream, answers_in
from backend.api.problems import responses
from backend.api.request_body import too_large
from backend.api.routes.streams import POSTED, RESUMED, follow_session
from backend.api.routes_base import MAX_VALUES, CallerRoute
from backend.api.starting import choice_in, start_and_stream
from backend.api.state import ApiState, state_of
from backend.api.user_message import MAX_FILES, UserMessage, check_text, read_user_message
from backend.chat.models import ANSWER_ID, OWN_MESSAGE_ID, Caller, Json, Task, TurnRequest
from backend.chat.store import branches, messages, revisions, sessions, tasks
from backend.config import Settings
from backend.errors import EmptyMessage, MessageNotFound, SessionNotFound, ValidationFailed
from backend.ids import SessionId, TaskId
from backend.postgres import Connection


class ChatRoute(CallerRoute):
    """A route whose body holds the whole conversation. The usual limits then apply to the user's last message."""

    max_values = 250_000
    max_depth = 500

    def body_limit(self, settings: Settings) -> int:
        return settings.max_chat_body_bytes

    def arriving(self, request: Request, api: ApiState) -> AbstractContextManager[None]:
        """Counts the request as arriving for its caller, as its session is unknown until the body is read."""
        if request.method != "POST":
            return nullcontext()
        return api.arrivals.arriving(state_of(request).identity.caller.quota_key)

    def answers_within(self, api: ApiState, body: Json) -> float:
        """Adds the time that the files of a message may take to be stored."""
        return super().answers_within(api, body) + FILE_SECONDS * len(_data_urls(body)[:MAX_FILES])

    def load(self, body: bytes, settings: Settings) -> Json:
        value = load_conversation(body, MAX_VALUES)
        if len(body) > settings.max_body_bytes < len(orjson.dumps(value)) - sum(map(len, _data_urls(value))):
            raise too_large(settings.max_body_bytes)
        return value


def _data_urls(value: Json) -> list[str]:
    """Returns the data URLs in the messages of a body."""
    messages = value.get("messages") if isinstance(value, dict) else None
    listed = messages if isinstance(messages, list) else []
    parts = [message.get("parts") for message in listed if isinstance(message, dict)]
    urls = [part.get("url") for some in parts if isinstance(some, list) for part in some if isinstance(part, dict)]
    return [url for url in urls if isinstance(url, str) and url.startswith("data:")]


FILE_SECONDS = 6.0
"""Seconds in which a file that came as a data URL is stored."""
_COMMON = responses(401, 413, 422, 429, 503)
posting = APIRouter(tags=["AI SDK"], route_class=ChatRoute, responses=_COMMON)
router = APIRouter(tags=["AI SDK"], route_class=ChatRoute, responses=_COMMON)
_NOTHING = UserMessage("")
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")


@posting.post("", response_class=Response, responses={200: STREAM[200], **POSTED})
async def chat(api: AppState, identity: AsIdentity, body: ChatRequest, key: AKey, accepts: Accepts) -> Response:
    """Sends a message, edits an earlier message, or asks for another answer, and streams the answer.

    A new message creates the session if it does not exist. It follows the last message before it in `messages` that the
    server knows, or `parent`. `regenerate-message` asks for another answer to the message
    that `messageId` names, or to the user's last message. If that message has another text than the stored one, it
    is edited. If the last message is the assistant's, and the page has answered parts of it (approvals, calls of the
    page's tools), the answers are applied, and the message is continued.
    """
    session_id = SessionId(body.id)
    if (given := answers_in(body)) is not None:
        return await answer_and_stream(api, identity, session_id, given, accepts)
    regenerate = body.trigger == "regenerate-message"
    if regenerate:
        async with api.resources.database.connection() as c:
            turn, said = await _regeneration(c, identity.caller, session_id, body, api.resources.settings, key)
        message_key = key or turn.message_id
    else:
        edited = body.message_id or await _edited(api, identity.caller, session_id, body)
        turn, said, message_key = _submission(body, api.resources.settings, key, edited)
    files = await files_of(api, identity.caller, session_id, said.files, turn.message_id) if said.files else ()
    return await start_and_stream(
        api,
        identity,
        session_id,
        replace(turn, files=files, choice=choice_in(api, body)),
        message_key=message_key,
        on_busy=body.on_busy,
        accepts=accepts,
        # an edit or a regeneration must not create a session again that was deleted
        create_session=turn.revises is None and not regenerate,
        after=body.after,
        page_tools=body.page_tools,
    )


router.add_api_route(
    "/{session_id}/stream",
    follow_session,
    name="resume_chat",
    description="Does the same as `GET /api/chat/sessions/{session_id}/stream`.",
    response_class=Response,
    responses=RESUMED,
)
router.add_api_route("/{session_id}/stream", follow_session, methods=["HEAD"], include_in_schema=False)


async def _edited(api: ApiState, caller: Caller, session_id: SessionId, body: ChatRequest) -> str | None:
    """Returns the id of the message that `{id, message}` without a trigger edits, or None if its message is new.

    A page that sends `{id, message}` (the AI SDK's own recipe) sends the same for `regenerate()` after it has changed a
    text. The message is then one that the server knows.
    """
    message = body.last_of_user
    alone = message is body.message and not body.messages
    if "trigger" in body.model_fields_set or message is None or not alone or _PRINTABLE.fullmatch(message.id) is None:
        return None
    async with api.resources.database.connection() as c:
        try:
            await sessions.get_session(c, session_id, caller)
        except SessionNotFound:
            return None
        return message.id if await revisions.versions_of(c, session_id, message.id) else None


def _submission(
    body: ChatRequest, settings: Settings, key: str | None, edited: str | None
) -> tuple[TurnRequest, UserMessage, str | None]:
    """Returns the requested turn, its message, and the key that makes it unique.

    That is the message's id, or the request's key for an edit. `edited` is the id of the message that it edits.
    """
    message = body.last_of_user
    if message is None:
        raise EmptyMessage("There is no message of the user among `messages`.")
    message_id = _checked_id(message.id) or key
    turn, said = _turn(read_user_message(message), settings, message_id, revises=edited)
    return turn, said, (key or message_id) if turn.revises is not None else message_id


def _turn(
    said: UserMessage, settings: Settings, message_id: str | None, *, revises: str | None = None
) -> tuple[TurnRequest, UserMessage]:
    said = check_text(said, settings)
    return TurnRequest(said.text, message_id, revises=revises, data=said.data, metadata=said.metadata), said


async def _regeneration(
    c: Connection, caller: Caller, session_id: SessionId, body: ChatRequest, settings: Settings, key: str | None
) -> tuple[TurnRequest, UserMessage]:
    """Returns the turn that answers a message of the user again, in the version that the page shows.

    Another tab may have edited the message since. And a page may change it before it asks for another answer: if the
    request has a text that no version of the message has, the turn is an edit with that text. If the server knows
    neither the id nor the text, it is a new message. So the answer is always one to the question that the page shows.
    The second value is the message that the turn brings: an answer to the same question brings none.
    """
    await sessions.get_session(c, session_id, caller)
    asked, versions = await _question_named(c, session_id, body)
    message = body.last_of_user
    said = _said_with_text(message) if message is not None and asked in (None, message.id) else None
    if asked is None:
        last = await messages.last_user_message(c, session_id)
        if message is not None and said is not None and (last is None or last.text != said.text):
            return _turn(said, settings, _checked_id(message.id))
        if last is None:
            raise MessageNotFound
        return _again(last.shown_id, last.task_id), _NOTHING
    shown = next((one for one in versions if said is None or one.request.text == said.text), None)
    if said is not None and (shown is None or await _has_sent(c, session_id, said.text, key)):
        return _turn(said, settings, asked, revises=asked)
    return (TurnRequest(None, revises=asked) if shown is None else _again(asked, shown.id)), _NOTHING


def _again(asked: str, version: TaskId) -> TurnRequest:
    """Returns the turn that answers a message again. `asked` is its id, `version` the task that it began."""
    return TurnRequest(None, revises=asked, parent=f"{OWN_MESSAGE_ID}{version}", branches=True)


def _said_with_text(message: UIMessageIn) -> UserMessage | None:
    """Returns the message, or None if it has no text: some pages send only the ids of messages."""
    said = read_user_message(message)
    return said if said.text.strip() else None


async def _has_sent(c: Connection, session_id: SessionId, text: str, key: str | None) -> bool:
    """Returns True if a request with this key has made this text the question already."""
    known = await tasks.find_task_by_key(c, session_id, key) if key is not None else None
    return known is not None and known.request.text == text


async def _answer_named(c: Connection, session_id: SessionId, body: ChatRequest) -> Task | None:
    """Returns the task whose answer `messageId` names, or None."""
    named = body.message_id or ""
    if named.startswith(ANSWER_ID):
        for task in await tasks.find_tasks(c, [TaskId(named.removeprefix(ANSWER_ID))]):
            if task.session_id == session_id and task.question_id is not None:
                return task
    return None


async def _question_named(c: Connection, session_id: SessionId, body: ChatRequest) -> tuple[str | None, list[Task]]:
    """Returns the id of the user message that the request names, and its versions. None if the server knows none.

    `messageId` may name that message or its answer, whose question is then the first of the versions. Otherwise it is
    the last user message of the request.
    """
    answer = await _answer_named(c, session_id, body)
    if answer is not None and (asked := answer.question_id) is not None:
        own = await branches.question_of(c, answer)
        versions = await revisions.versions_of(c, session_id, asked)
        return asked, sorted(versions, key=lambda one: one.id != own)
    last_sent = body.last_of_user.id if body.last_of_user is not None else ""
    for message_id in filter(None, (body.message_id, last_sent)):
        if versions := await revisions.versions_of(c, session_id, message_id):
            return message_id, versions
    return None, []


def _checked_id(message_id: str) -> str | None:
    if message_id and _PRINTABLE.fullmatch(message_id) is None:
        raise ValidationFailed("A message id has 1 to 255 printable ASCII characters.")
    return message_id or None
