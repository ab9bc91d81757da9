"""What endpoints ask for, as annotated parameters."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from fastapi import Depends, Header, Path, Query, Request
from fastapi.security import HTTPBearer

from backend.api.auth import Identity
from backend.api.desk import Desk, state_of
from backend.chat.agent_json import is_agent_id
from backend.chat.models import Caller
from backend.errors import AgentNotFound, InvalidCursor, InvalidIdempotencyKey, TaskNotFound
from backend.ids import BEGINNING, SESSION_ID_PATTERN, SessionId, StreamId, TaskId, UserId

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CURSOR_FORM = {"pattern": r"^([0-9]{1,19}-[0-9]{1,19}|0)$"}
_bearer = HTTPBearer(auto_error=False, description="A JWT; `sub` is the user.")


async def _desk(request: Request) -> Desk:
    return state_of(request).desk


async def _identity(request: Request, _documented: Annotated[object, Depends(_bearer)]) -> Identity:
    return state_of(request).identity


async def _caller(identity: Annotated[Identity, Depends(_identity)]) -> Caller:
    return identity.caller


async def _session_id(session_id: Annotated[str, Path(pattern=SESSION_ID_PATTERN)]) -> SessionId:
    return SessionId(session_id)


async def _task_id(task_id: str) -> TaskId:
    """An id that we cannot have made names nothing."""
    if _TASK_ID.fullmatch(task_id) is None:
        raise TaskNotFound
    return TaskId(task_id)


async def _agent_id(agent_id: Annotated[str, Path(description="Its id in the library, or in its graph.")]) -> str:
    if not is_agent_id(agent_id):
        raise AgentNotFound
    return agent_id


async def _agents_user(caller: Annotated[Caller, Depends(_caller)]) -> UserId:
    """Who is nobody has no library, so no agent in it."""
    if caller.user_id is None:
        raise AgentNotFound
    return caller.user_id


async def _cursor(
    last_event_id: Annotated[
        str | None, Header(description="The `id` of the last event that was received.", json_schema_extra=_CURSOR_FORM)
    ] = None,
    last_message_id: Annotated[
        str | None, Query(description="The same, for clients without headers.", json_schema_extra=_CURSOR_FORM)
    ] = None,
) -> StreamId | None:
    """None: from the start."""
    given = last_event_id if last_event_id is not None else last_message_id
    if given in (None, "", "0"):
        return None
    try:
        cursor = StreamId.parse(given)
    except ValueError:
        raise InvalidCursor from None
    return None if cursor == BEGINNING else cursor


async def _accepts(
    accept: Annotated[
        str | None,
        Query(max_length=500, description="Chunk types beyond the common subset that the client takes: `reset-step`."),
    ] = None,
) -> frozenset[str]:
    return frozenset(kind.strip() for kind in (accept or "").split(","))


async def _idempotency_key(
    idempotency_key: Annotated[str | None, Header(json_schema_extra={"pattern": r"^[\x20-\x7e]{1,255}$"})] = None,
) -> str | None:
    if idempotency_key is not None and _KEY.fullmatch(idempotency_key) is None:
        raise InvalidIdempotencyKey
    return idempotency_key


AtDesk: TypeAlias = Annotated[Desk, Depends(_desk)]
AsIdentity: TypeAlias = Annotated[Identity, Depends(_identity)]
AsCaller: TypeAlias = Annotated[Caller, Depends(_caller)]
ASession: TypeAlias = Annotated[SessionId, Depends(_session_id)]
ATask: TypeAlias = Annotated[TaskId, Depends(_task_id)]
AnAgent: TypeAlias = Annotated[str, Depends(_agent_id)]
AgentsUser: TypeAlias = Annotated[UserId, Depends(_agents_user)]
ACursor: TypeAlias = Annotated[StreamId | None, Depends(_cursor)]
Accepts: TypeAlias = Annotated[frozenset[str], Depends(_accepts)]
AKey: TypeAlias = Annotated[str | None, Depends(_idempotency_key)]
