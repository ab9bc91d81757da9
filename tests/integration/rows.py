"""Rows that the tests of the stores use."""

from __future__ import annotations

from backend.chat.models import Caller, NewMessage, Role, Task, TextPart, TurnRequest
from backend.chat.store import tasks
from backend.chat.store.sessions import create_session
from backend.ids import ExecutorId, SessionId, UserId, new_executor_id, new_session_id, new_task_id
from backend.postgres import Connection

NOBODY = Caller(None, "192.0.2.1")


def new_user() -> Caller:
    return Caller(UserId(f"user-{new_session_id()}"), "192.0.2.2")


def text_message(text: str, role: Role = Role.USER) -> NewMessage:
    return NewMessage(role, (TextPart(text),))


async def a_session(c: Connection, caller: Caller = NOBODY) -> SessionId:
    created = await create_session(c, new_session_id(), caller.user_id, {})
    assert created.is_new
    return created.session.id


async def a_task(
    c: Connection,
    session_id: SessionId,
    caller: Caller = NOBODY,
    *,
    active: bool = True,
    priority: int = 0,
    key: str | None = None,
) -> Task:
    return await tasks.insert_task(
        c,
        task_id=new_task_id(),
        session_id=session_id,
        caller=caller,
        request=TurnRequest("hello"),
        message_key=key,
        active=active,
        priority=priority,
    )


async def a_claimed_task(c: Connection, executor_id: ExecutorId | None = None) -> Task:
    task = await a_task(c, await a_session(c))
    claimed = await tasks.claim_task(c, task.id, executor_id or new_executor_id(), seen_owner=None, seen_attempt=0)
    assert claimed is not None
    return claimed
