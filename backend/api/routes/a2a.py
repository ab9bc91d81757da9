"""A2A 1.0 over JSON-RPC, for agents. A context is a session, and each message begins a task of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from backend.api.a2a_answers import (
    NotCancelable,
    PushNotSupported,
    RpcError,
    UnsupportedOperation,
    UpdateStream,
    WholeTask,
    failure,
    refusal,
    result,
)
from backend.api.a2a_schemas import (
    ListParams,
    PushConfig,
    PushParams,
    RpcRequest,
    SendParams,
    TaskParams,
    required_context,
)
from backend.api.attaching import attached_or_from_rows, slot_for
from backend.api.auth import Identity
from backend.api.deps import AppState, AsIdentity, parse_task_id
from backend.api.file_storing import files_of
from backend.api.open_streams import StreamSlot, Viewer
from backend.api.problems import responses, validation_problem
from backend.api.routes.health import VERSION
from backend.api.routes.webhooks import check_url
from backend.api.routes_base import CallerRoute, OpenRoute
from backend.api.starting import publish
from backend.api.state import ApiState, state_of
from backend.api.user_message import MAX_FILES, check_text
from backend.chat.flows import cancel, start
from backend.chat.models import Caller, Json, Task, TurnRequest
from backend.chat.protocol.renderings.a2a_tasks import task_json, text_of
from backend.chat.store import history_pages, messages, sessions, tasks
from backend.chat.store.webhooks import pushes
from backend.chat.store.webhooks.pushes import Push
from backend.chat.streams.reader import RESET_STEP
from backend.config import Settings
from backend.errors import AppError, BadRequest, Unprocessable
from backend.files.kinds import DOCX, XLSX
from backend.ids import SessionId, UserId, new_session_id
from backend.postgres import Connection

PATH = "/a2a"
CARD = "/.well-known/agent-card.json"
PROTOCOL_VERSION = "1.0"
FILE_SECONDS = 6.0
"""Seconds in which a file of a message is stored."""
PAGE = 50
"""Tasks that a page has if the client names no number."""
_RESET = frozenset({RESET_STEP})
_Method: TypeAlias = Callable[[ApiState, Identity, RpcRequest], Awaitable[Response | Json]]
_Params = TypeVar("_Params", bound=BaseModel)
_ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A response of JSON-RPC, or for `SendStreamingMessage` and `SubscribeToTask` a stream of them. "
        "Errors of the protocol are 200, too.",
        "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {}}},
    }
}


class A2ARoute(CallerRoute):
    """A route whose body may hold the files of a message."""

    max_values = 50_000

    def body_limit(self, settings: Settings) -> int:
        return settings.max_chat_body_bytes

    def arriving(self, request: Request, api: ApiState) -> AbstractContextManager[None]:
        """Counts the request as arriving for its caller, as its session is unknown until the body is read."""
        return api.arrivals.arriving(state_of(request).identity.caller.quota_key)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Answers with an error of JSON-RPC, even if the request is not JSON-RPC."""
        answer = super().get_route_handler()

        async def check_and_answer(request: Request) -> Response:
            try:
                return await answer(request)
            except (BadRequest, Unprocessable, RequestValidationError) as error:
                return refusal(error)

        return check_and_answer

    def answers_within(self, api: ApiState, body: Json) -> float:
        """Adds the time that the files of a message may take to be stored."""
        return super().answers_within(api, body) + FILE_SECONDS * min(_raw_parts(body), MAX_FILES)


def _raw_parts(body: Json) -> int:
    """Returns how many parts of a message are files."""
    for name in ("params", "message", "parts"):
        body = body.get(name) if isinstance(body, dict) else None
    return sum(isinstance(part, dict) and "raw" in part for part in body) if isinstance(body, list) else 0


router = APIRouter(tags=["A2A"], route_class=A2ARoute)
cards = APIRouter(tags=["A2A"], route_class=OpenRoute)


@cards.get(CARD)
async def agent_card(request: Request, api: AppState) -> dict[str, Any]:
    """Returns the card of the agent that this server is."""
    settings = api.resources.settings
    chosen = "platform_base_url" in settings.model_fields_set
    base = settings.platform_base_url if chosen else str(request.base_url)
    card: dict[str, Any] = {
        "name": "CoPilot",
        "description": "An assistant that answers questions, uses tools, and builds and runs agents.",
        "version": VERSION,
        "supportedInterfaces": [
            {
                "url": f"{base.rstrip('/')}/api/chat{PATH}",
                "protocolBinding": "JSONRPC",
                "protocolVersion": PROTOCOL_VERSION,
            }
        ],
        "capabilities": {
            "streaming": True,
            "pushNotifications": settings.max_webhooks > 0,
            "extendedAgentCard": False,
        },
        "defaultInputModes": ["text/plain", "application/json", "image/*", "application/pdf", DOCX, XLSX],
        "defaultOutputModes": ["text/plain"],
        "skills": [
            {
                "id": "chat",
                "name": "Chat",
                "description": "Answers a message, with the tools of this server. A context is a conversation.",
                "tags": ["chat", "tools"],
            }
        ],
    }
    if settings.auth_mode != "none":
        card["securitySchemes"] = {"bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer", "bearerFormat": "JWT"}}}
    if settings.auth_mode == "required":
        card["securityRequirements"] = [{"schemes": {"bearer": {"list": []}}}]
    return card


@router.post(
    PATH,
    response_class=Response,
    responses={**_ANSWERED, **responses(400, 401, 408, 409, 410, 413, 415, 422, 429, 503)},
)
async def call(request: Request, api: AppState, identity: AsIdentity, body: RpcRequest) -> Response:
    """Answers a request of A2A: `SendMessage`, `SendStreamingMessage`, `SubscribeToTask`, `GetTask`, `ListTasks`,
    `CancelTask`, and `Create`, `Get`, `List` and `Delete` of `TaskPushNotificationConfig`.
    """
    try:
        answer = await _method(request, body)(api, identity, body)
    except (AppError, RpcError) as error:
        return failure(body.id, error)
    return answer if isinstance(answer, Response) else result(body.id, answer)


def _method(request: Request, body: RpcRequest) -> _Method:
    """Returns the method that is called. Raises RpcError for one, or for a version, that this server does not know."""
    version = request.headers.get("a2a-version") or PROTOCOL_VERSION
    if version.partition(".")[0] != "1":
        raise RpcError(-32009, "VERSION_NOT_SUPPORTED", f"This server speaks A2A {PROTOCOL_VERSION}.")
    method = _METHODS.get(body.method)
    if method is None:
        raise RpcError(-32601, "METHOD_NOT_FOUND", "There is no such method in A2A 1.0.")
    return method


def _parse(model: type[_Params], body: RpcRequest) -> _Params:
    """Raises ValidationFailed."""
    try:
        return model.model_validate(body.params)
    except ValidationError as error:
        raise validation_problem(error.errors()) from None


# --- messages ---------------------------------------------------------------------------------------------------------


async def _send(api: ApiState, identity: Identity, body: RpcRequest) -> Response | Json:
    """Sends a message and answers with its task: when it has ended or, if the client says so, at once."""
    sent = _parse(SendParams, body)
    history = sent.configuration.history_length != 0
    if sent.configuration.return_immediately:
        task = await _start(api, identity, sent)
        return {"task": await _read(api, task, history=history)}
    with slot_for(api, identity, "POST") as slot:
        task = await _start(api, identity, sent, slot)

        async def read() -> Json:
            async with api.resources.database.connection() as c:
                ended = await tasks.get_task(c, task.id)
            return {"task": await _read(api, ended, history=history)}

        return WholeTask(_frames(api, task), task, body.id, read, **_reading(api, identity, task, slot))


async def _send_streaming(api: ApiState, identity: Identity, body: RpcRequest) -> Response:
    sent = _parse(SendParams, body)
    with slot_for(api, identity, "POST") as slot:
        task = await _start(api, identity, sent, slot)
        return UpdateStream(_frames(api, task), task, body.id, **_reading(api, identity, task, slot))


async def _start(api: ApiState, identity: Identity, sent: SendParams, slot: StreamSlot | None = None) -> Task:
    """Starts the turn of a message. A message with a known id has its task already."""
    settings, caller, message = api.resources.settings, identity.caller, sent.message
    if message.task_id:
        raise UnsupportedOperation("Each message begins a task of its own: send it with `contextId` alone.")
    said = check_text(message.read(), settings)
    session_id = SessionId(message.context_id) if message.context_id else new_session_id()
    config = sent.configuration.task_push_notification_config
    if config is not None:
        _check_push(api, caller, config)
    files = await files_of(api, caller, session_id, said.files, message.message_id) if said.files else ()
    turn = TurnRequest(said.text, message.message_id, metadata=said.metadata, files=files, choice=sent.choice)
    with api.arrivals.arriving(session_id):
        started = await start.start_turn(
            api.resources,
            caller,
            session_id,
            turn,
            message_key=message.message_id,
            create_session=True,
            on_create=lambda: api.new_sessions.count(caller.quota_key),
        )
        if slot is not None:
            slot.subject = started.task.id
        publish(api, caller, started)
    if config is not None:
        await _set_push(api, caller, started.task, config)
    return started.task


async def _subscribe(api: ApiState, identity: Identity, body: RpcRequest) -> Response:
    """Streams a task that has not ended: the task, then all of its updates."""
    task = await _task(api, identity.caller, _parse(TaskParams, body).id)
    if task.status.ended:
        raise UnsupportedOperation("The task has ended: get it.")
    with slot_for(api, identity, "POST", task.id) as slot:
        return UpdateStream(_frames(api, task), task, body.id, **_reading(api, identity, task, slot))


def _frames(api: ApiState, task: Task) -> Callable[[], Awaitable[Any]]:
    return lambda: attached_or_from_rows(api, task, _RESET)


def _reading(api: ApiState, identity: Identity, task: Task, slot: StreamSlot | None) -> Mapping[str, Any]:
    return {
        "slot": slot,
        "open_streams": api.open_streams,
        "expires_at": identity.expires_at,
        "viewer": Viewer(task.session_id, identity.caller.user_id),
    }


# --- tasks ------------------------------------------------------------------------------------------------------------


async def _task(api: ApiState, caller: Caller, id: str) -> Task:
    """Raises TaskNotFound."""
    async with api.resources.database.connection() as c:
        return await tasks.get_task(c, parse_task_id(id), caller)


async def _read(api: ApiState, task: Task, *, history: bool) -> Json:
    """Returns a task, with its answer if it has ended."""
    if not task.status.ended:
        return task_json(task, history=history)
    async with api.resources.database.connection() as c:
        return await _with_answer(c, task, history=history)


async def _with_answer(c: Connection, task: Task, *, history: bool) -> Json:
    return task_json(task, text=text_of(await messages.messages_of_task(c, task.id)), history=history)


async def _get(api: ApiState, identity: Identity, body: RpcRequest) -> Json:
    asked = _parse(TaskParams, body)
    task = await _task(api, identity.caller, asked.id)
    return await _read(api, task, history=asked.history_length != 0)


async def _list(api: ApiState, identity: Identity, body: RpcRequest) -> Json:
    """Lists the tasks of a context, newest first."""
    asked = _parse(ListParams, body)
    session_id, limit = SessionId(required_context(asked)), asked.page_size or PAGE
    history = asked.history_length != 0
    async with api.resources.database.snapshot() as c:
        await sessions.get_session(c, session_id, identity.caller)
        page = await history_pages.tasks_of_session(
            c,
            session_id,
            statuses=asked.statuses(),
            since=asked.status_timestamp_after,
            before=asked.before,
            limit=limit,
        )
        if asked.include_artifacts:
            shown = [await _with_answer(c, task, history=history) for task in page.tasks]
        else:
            shown = [task_json(task, history=history) for task in page.tasks]
    token = "" if page.older is None else str(page.older)
    return {"tasks": shown, "nextPageToken": token, "pageSize": limit, "totalSize": page.total}


async def _cancel(api: ApiState, identity: Identity, body: RpcRequest) -> Json:
    """Cancels a task, and waits up to 5 s for its end."""
    task = await _task(api, identity.caller, _parse(TaskParams, body).id)
    cancelled = await cancel.cancel_task(api.resources, task)
    if not cancelled.cancelled:
        raise NotCancelable
    return await _read(api, await _task(api, identity.caller, task.id), history=True)


# --- pushes -----------------------------------------------------------------------------------------------------------


async def _create_push(api: ApiState, identity: Identity, body: RpcRequest) -> Json:
    config = _parse(PushConfig, body)
    _check_push(api, identity.caller, config)
    task = await _task(api, identity.caller, config.task_id)
    return _push_json(await _set_push(api, identity.caller, task, config))


async def _get_push(api: ApiState, identity: Identity, body: RpcRequest) -> Json:
    asked = _parse(PushParams, body)
    task = await _task(api, identity.caller, asked.task_id)
    async with api.resources.database.connection() as c:
        return _push_json(await pushes.get_push(c, identity.caller, task.id, asked.id or task.id))


async def _list_pushes(api: ApiState, identity: Identity, body: RpcRequest) -> Json:
    task = await _task(api, identity.caller, _parse(PushParams, body).task_id)
    async with api.resources.database.connection() as c:
        found = await pushes.pushes_of(c, identity.caller, task.id)
    return {"configs": [_push_json(push) for push in found], "nextPageToken": ""}


async def _delete_push(api: ApiState, identity: Identity, body: RpcRequest) -> Json:
    asked = _parse(PushParams, body)
    task = await _task(api, identity.caller, asked.task_id)
    async with api.resources.database.transaction() as c:
        await pushes.delete_push(c, identity.caller, task.id, asked.id or task.id)
    return {}


def _check_push(api: ApiState, caller: Caller, config: PushConfig) -> UserId:
    """Returns the user. Raises PushNotSupported, and InvalidWebhookUrl for a URL to which nothing would be sent."""
    settings = api.resources.settings
    if settings.max_webhooks == 0:
        raise PushNotSupported("This server sends no push notifications (MAX_WEBHOOKS).")
    if caller.user_id is None:
        raise PushNotSupported("Push notifications are for signed-in users.")
    check_url(config.url, settings)
    return caller.user_id


async def _set_push(api: ApiState, caller: Caller, task: Task, config: PushConfig) -> Push:
    user_id = _check_push(api, caller, config)
    credentials = None if config.authentication is None else config.authentication.header
    push = Push(task.id, config.id or task.id, config.url, config.token or None, credentials)
    async with api.resources.database.transaction() as c:
        await pushes.set_push(c, user_id, task, push)
    return push


def _push_json(push: Push) -> Json:
    """Returns a config without its secrets."""
    shown: dict[str, Json] = {"id": push.id, "taskId": push.task_id, "url": push.url}
    if push.credentials is not None:
        shown["authentication"] = {"scheme": push.credentials.partition(" ")[0]}
    return shown


async def _extended_card(api: ApiState, identity: Identity, body: RpcRequest) -> Json:
    raise RpcError(-32007, "EXTENDED_AGENT_CARD_NOT_CONFIGURED", "There is no extended agent card.")


_METHODS: Mapping[str, _Method] = {
    "SendMessage": _send,
    "SendStreamingMessage": _send_streaming,
    "SubscribeToTask": _subscribe,
    "GetTask": _get,
    "ListTasks": _list,
    "CancelTask": _cancel,
    "CreateTaskPushNotificationConfig": _create_push,
    "GetTaskPushNotificationConfig": _get_push,
    "ListTaskPushNotificationConfigs": _list_pushes,
    "DeleteTaskPushNotificationConfig": _delete_push,
    "GetExtendedAgentCard": _extended_card,
}
