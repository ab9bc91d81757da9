"""The parameters and dependencies of endpoints, as annotated types."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from fastapi import Depends, Header, Path, Query, Request
from fastapi.security import HTTPBearer

from backend.api.auth import Identity
from backend.api.state import ApiState, state_of
from backend.chat.models import Caller
from backend.chat.protocol.agent_json import is_agent_id
from backend.chat.protocol.approval_requests import APPROVAL_REQUESTS
from backend.chat.protocol.page_tools import PAGE_TOOLS
from backend.chat.protocol.static_tools import DYNAMIC_TOOLS, STATIC_TOOLS
from backend.chat.protocol.steering_messages import STEERING_MESSAGES
from backend.chat.questions import QUESTIONS
from backend.chat.streams.reader import RESET_STEP
from backend.errors import (
    AgentNotFound,
    ConnectionNotFound,
    FileNotFound,
    FolderNotFound,
    InvalidCursor,
    InvalidIdempotencyKey,
    OperationNotFound,
    TaskNotFound,
    Unauthenticated,
    ValidationFailed,
    WebhookNotFound,
)
from backend.ids import BEGINNING, SESSION_ID_PATTERN, FileId, OperationId, SessionId, StreamId, TaskId, UserId

Limit: TypeAlias = Annotated[int, Query(ge=1, le=100, description="The largest number of entries to return.")]
Offset: TypeAlias = Annotated[int, Query(ge=0, le=1_000_000, description="The number of entries to skip.")]
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DELIVERY = re.compile(r"evt_[0-9a-f]{32}")
_ACCEPTABLE = frozenset(
    {RESET_STEP, APPROVAL_REQUESTS, STEERING_MESSAGES, PAGE_TOOLS, STATIC_TOOLS, DYNAMIC_TOOLS, QUESTIONS}
)
_CURSOR_FORM = {"pattern": r"^([0-9]{1,19}-[0-9]{1,19}|0)$"}
_bearer = HTTPBearer(auto_error=False, description="A JWT whose `sub` claim is the user's id.")


async def _api(request: Request) -> ApiState:
    return state_of(request).api


async def _identity(request: Request, _documented: Annotated[object, Depends(_bearer)]) -> Identity:
    return state_of(request).identity


async def _caller(identity: Annotated[Identity, Depends(_identity)]) -> Caller:
    return identity.caller


async def _session_id(session_id: Annotated[str, Path(pattern=SESSION_ID_PATTERN)]) -> SessionId:
    return SessionId(session_id)


async def _task_id(task_id: str) -> TaskId:
    return parse_task_id(task_id)


def parse_task_id(task_id: str) -> TaskId:
    """Raises TaskNotFound if the id is no UUID, so that no store is asked for it."""
    if _UUID.fullmatch(task_id) is None:
        raise TaskNotFound
    return TaskId(task_id)


async def _operation_id(operation_id: str) -> OperationId:
    """Raises OperationNotFound if the id is no UUID, so that no store is asked for it."""
    if _UUID.fullmatch(operation_id) is None:
        raise OperationNotFound
    return OperationId(operation_id)


async def _agent_id(
    agent_id: Annotated[str, Path(description="The agent's id in the library, or the id in its graph (`graph_id`).")],
) -> str:
    if not is_agent_id(agent_id):
        raise AgentNotFound
    return agent_id


async def _agents_user(caller: Annotated[Caller, Depends(_caller)]) -> UserId:
    """Returns the user whose library is meant. Raises AgentNotFound for anonymous callers, who have no library."""
    if caller.user_id is None:
        raise AgentNotFound
    return caller.user_id


async def _user_id(caller: Annotated[Caller, Depends(_caller)]) -> UserId:
    """Returns the signed-in user. Raises Unauthenticated for anonymous callers."""
    if caller.user_id is None:
        raise Unauthenticated
    return caller.user_id


async def _webhooks_user(caller: Annotated[Caller, Depends(_caller)]) -> UserId:
    """Returns the user whose webhook is meant. Raises WebhookNotFound for anonymous callers, who have none."""
    if caller.user_id is None:
        raise WebhookNotFound
    return caller.user_id


async def _connections_user(caller: Annotated[Caller, Depends(_caller)]) -> UserId:
    """Returns the user whose connection is meant. Raises ConnectionNotFound for anonymous callers, who have none."""
    if caller.user_id is None:
        raise ConnectionNotFound
    return caller.user_id


async def _folders_user(caller: Annotated[Caller, Depends(_caller)]) -> UserId:
    """Returns the user whose folder is meant. Raises FolderNotFound for anonymous callers, who have none."""
    if caller.user_id is None:
        raise FolderNotFound
    return caller.user_id


async def _folder_id(folder_id: str) -> str:
    """Raises FolderNotFound if the id is no UUID, so that no store is asked for it."""
    if _UUID.fullmatch(folder_id) is None:
        raise FolderNotFound
    return folder_id


def is_task_id(text: str) -> bool:
    """Returns True if the text can be the id of a task."""
    return _UUID.fullmatch(text) is not None


async def _webhook_id(webhook_id: str) -> str:
    """Raises WebhookNotFound if the id is no UUID, so that no store is asked for it."""
    if _UUID.fullmatch(webhook_id) is None:
        raise WebhookNotFound
    return webhook_id


async def _file_id(file_id: str) -> FileId:
    """Raises FileNotFound if the id is no UUID, so that no store is asked for it."""
    if _UUID.fullmatch(file_id) is None:
        raise FileNotFound
    return FileId(file_id)


async def _delivery_id(delivery_id: str) -> str:
    """Raises WebhookNotFound if it cannot be the id of a delivery, so that no store is asked for it."""
    if _DELIVERY.fullmatch(delivery_id) is None:
        raise WebhookNotFound
    return delivery_id


async def _cursor(
    last_event_id: Annotated[
        str | None,
        Header(
            description="The `id` of the last event that was received. The stream continues after it.",
            json_schema_extra=_CURSOR_FORM,
        ),
    ] = None,
    last_message_id: Annotated[
        str | None,
        Query(
            description="The same as the `Last-Event-ID` header, for clients that cannot set headers.",
            json_schema_extra=_CURSOR_FORM,
        ),
    ] = None,
) -> StreamId | None:
    """Returns None for a stream from its start. Raises InvalidCursor."""
    given = last_event_id if last_event_id is not None else last_message_id
    if given in (None, "", "0"):
        return None
    try:
        cursor = StreamId.parse(given)
    except ValueError:
        raise InvalidCursor from None
    return None if cursor == BEGINNING else cursor


async def _accepts(
    api: Annotated[ApiState, Depends(_api)],
    accept: Annotated[
        str | None,
        Query(
            max_length=500,
            description="What the client understands beyond the usual, separated by commas. Known: the chunk types "
            "`reset-step`, `tool-approval-request` and `steering-message`; `page-tools`, calls of the page's tools as "
            "its own; `static-tools`, tool parts of the types `tool-NAME`; `dynamic-tools`, parts of the type "
            "`dynamic-tool` even if TOOL_PARTS is `static`; and `questions`: the page shows what the user is asked.",
        ),
    ] = None,
) -> frozenset[str]:
    words = {word.strip() for word in (accept or "").split(",")} - {""}
    if words - _ACCEPTABLE:
        raise ValidationFailed(f"`accept` has a word that is not known. Known are {', '.join(sorted(_ACCEPTABLE))}.")
    if DYNAMIC_TOOLS in words:
        words.discard(STATIC_TOOLS)
    elif api.resources.settings.tool_parts == "static":
        words.add(STATIC_TOOLS)
    return frozenset(words)


async def _idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Requests with the same key are carried out only once.",
            json_schema_extra={"pattern": r"^[\x20-\x7e]{1,255}$"},
        ),
    ] = None,
) -> str | None:
    if idempotency_key is not None and _KEY.fullmatch(idempotency_key) is None:
        raise InvalidIdempotencyKey
    return idempotency_key


AppState: TypeAlias = Annotated[ApiState, Depends(_api)]
AsIdentity: TypeAlias = Annotated[Identity, Depends(_identity)]
AsCaller: TypeAlias = Annotated[Caller, Depends(_caller)]
ASession: TypeAlias = Annotated[SessionId, Depends(_session_id)]
ATask: TypeAlias = Annotated[TaskId, Depends(_task_id)]
AnOperation: TypeAlias = Annotated[OperationId, Depends(_operation_id)]
AnAgent: TypeAlias = Annotated[str, Depends(_agent_id)]
AUser: TypeAlias = Annotated[UserId, Depends(_user_id)]
WebhooksUser: TypeAlias = Annotated[UserId, Depends(_webhooks_user)]
ConnectionsUser: TypeAlias = Annotated[UserId, Depends(_connections_user)]
FoldersUser: TypeAlias = Annotated[UserId, Depends(_folders_user)]
AFolder: TypeAlias = Annotated[str, Depends(_folder_id)]
AWebhook: TypeAlias = Annotated[str, Depends(_webhook_id)]
ADelivery: TypeAlias = Annotated[str, Depends(_delivery_id)]
AFile: TypeAlias = Annotated[FileId, Depends(_file_id)]
AgentsUser: TypeAlias = Annotated[UserId, Depends(_agents_user)]
ACursor: TypeAlias = Annotated[StreamId | None, Depends(_cursor)]
Accepts: TypeAlias = Annotated[frozenset[str], Depends(_accepts)]
AKey: TypeAlias = Annotated[str | None, Depends(_idempotency_key)]
