"""Edits and regenerations: what a request says about an earlier message, resolved under the session's lock.

A request names the message by its id, not by its place: while a turn waits, an edit may take the message's place, and
what stood after it may be gone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from backend.chat import messages, tasks
from backend.chat.models import Task, TurnRequest
from backend.errors import IdempotencyKeyReused
from backend.ids import SessionId
from backend.postgres import Connection


class Recalled(NamedTuple):
    """`task` answers the request already; when there is none, what to do, and the key that tells it apart."""

    task: Task | None
    request: TurnRequest
    message_key: str | None


async def recall(c: Connection, session_id: SessionId, request: TurnRequest, message_key: str | None) -> Recalled:
    """Looks for the task of a request that was sent before. An edit of a message that waits is done here: its task
    takes the new text. Raises IdempotencyKeyReused; an edit is no second use of its message's id."""
    if request.text is None or request.revises is None:
        return Recalled(await _find_by_key(c, session_id, request, message_key), request, message_key)
    waiting = await _change_waiting(c, session_id, request.revises, request.text)
    if waiting is not None:
        return Recalled(waiting, request, None)
    asked = await messages.find_user_message(c, session_id, request.revises)
    if asked is not None and asked.text == request.text:
        return Recalled(await tasks.get_task(c, asked.task_id), request, None)
    told_apart = None if message_key == request.message_id else message_key
    if asked is not None:
        edit = replace(request, message_id=request.revises)
        return Recalled(await _find_by_key(c, session_id, edit, told_apart), edit, told_apart)
    try:  # what it names is not shown (any more): a message like any other
        known = await _find_by_key(c, session_id, request, message_key)
    except IdempotencyKeyReused:
        if told_apart is not None:
            raise
        known, message_key = None, None
    return Recalled(known, replace(request, revises=None), message_key)


async def superseded_from(c: Connection, task: Task) -> int | None:
    """From which sequence on the session's rows give way to this task, which becomes the active one; None: nowhere.

    An edit takes the place of the message it names, if that is shown; a regeneration answers it again, else the last
    one that is shown.
    """
    session_id, request = task.session_id, task.request
    asked = None
    if request.revises is not None:
        asked = await messages.find_user_message(c, session_id, request.revises)
    if request.text is not None:
        return asked.sequence if asked is not None else None
    asked = asked or await messages.last_user_message(c, session_id)
    return asked.sequence + 1 if asked is not None else None


async def find_waiting(c: Connection, session_id: SessionId, message_id: str) -> Task | None:
    """The turn that waits with the newest text of the user's message of that id."""
    for task in reversed(await tasks.queued_tasks(c, session_id)):
        request = task.request
        says = request.text is not None and request.is_user_message and not task.cancel_requested
        if says and task.question_id == message_id:
            return task
    return None


async def _change_waiting(c: Connection, session_id: SessionId, message_id: str, text: str) -> Task | None:
    waiting = await find_waiting(c, session_id, message_id)
    if waiting is None or waiting.request.text == text:
        return waiting
    return await tasks.change_request(c, waiting.id, replace(waiting.request, text=text))


async def _find_by_key(
    c: Connection, session_id: SessionId, request: TurnRequest, message_key: str | None
) -> Task | None:
    known = await tasks.find_task_by_key(c, session_id, message_key) if message_key is not None else None
    if known is not None and (known.request.text, known.request.context) != (request.text, request.context):
        raise IdempotencyKeyReused
    return known
