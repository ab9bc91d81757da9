"""Edits and regenerations: requests that revise an earlier message, resolved under the session's lock.

A request names the message by its id, not by its sequence. While the request's turn waits, an edit may put another
message in its place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from backend.chat.models import ANSWER_ID, OWN_MESSAGE_ID, Task, TurnRequest
from backend.chat.store import messages, tasks
from backend.errors import IdempotencyKeyReused, MessageTakenIn
from backend.ids import SessionId, TaskId
from backend.postgres import Connection

MAX_VERSIONS = 100
"""The most versions of a message that are searched."""


class EarlierRequest(NamedTuple):
    """The result of `find_earlier_request`. If `task` is set, it answers the request, and the rest does not matter.

    Otherwise `request` is to be carried out. `message_key` identifies it when it is sent again; None if nothing does.
    """

    task: Task | None
    request: TurnRequest
    message_key: str | None


async def find_earlier_request(
    c: Connection, session_id: SessionId, request: TurnRequest, message_key: str | None
) -> EarlierRequest:
    """Finds the task of a request that was sent before, and resolves the message that an edit names.

    If the message that the edit names still waits, changes the text of its task. An edit without files keeps those
    of the message. It may use the id of the message that it edits as its own; that id is then no idempotency key.

    Raises IdempotencyKeyReused if another request has used the key, and MessageTakenIn if the edit names a message
    that a turn has taken in.
    """
    if request.text is None or request.revises is None:
        return EarlierRequest(await _find_by_key(c, session_id, request, message_key), request, message_key)
    named = request.revises
    waiting = await _change_waiting(c, session_id, named, request)
    if waiting is not None:
        return EarlierRequest(waiting, request, None)
    asked = await messages.find_user_message(c, session_id, request.revises)
    if asked is not None and not request.files:
        request = replace(request, files=asked.files)
    if asked is not None and (asked.text, asked.files) == (request.text, request.files):
        return EarlierRequest(await tasks.get_task(c, asked.task_id), request, None)
    told_apart = None if message_key == request.message_id else message_key
    if asked is not None:
        edit = replace(request, message_id=request.revises)
        return EarlierRequest(await _find_by_key(c, session_id, edit, told_apart), edit, told_apart)
    taken = await messages.find_taken_in(c, session_id, named)
    if taken is not None and (taken.text, taken.files) != (request.text, request.files or taken.files):
        raise MessageTakenIn
    try:  # the session does not have the message that it names: treat it as a new message
        known = await _find_by_key(c, session_id, request, message_key)
    except IdempotencyKeyReused:
        if told_apart is not None:
            raise
        known, message_key = None, None
    return EarlierRequest(known, replace(request, revises=None), message_key)


async def find_waiting(c: Connection, session_id: SessionId, message_id: str) -> Task | None:
    """Returns the waiting turn that has the newest text of the user message with this id."""
    for task in reversed(await tasks.queued_tasks(c, session_id)):
        request = task.request
        says = request.text is not None and request.is_user_message and not task.cancel_requested
        if says and task.question_id == message_id:
            return task
    return None


_VERSIONS = f"""
SELECT task_id FROM messages
WHERE session_id = $1 AND role = 'user' AND step = 0
  AND (message_id = $2 OR (message_id IS NULL AND '{OWN_MESSAGE_ID}' || task_id = $2))
ORDER BY superseded_by IS NOT NULL, sequence DESC LIMIT $3"""


async def versions_of(c: Connection, session_id: SessionId, message_id: str) -> list[Task]:
    """Returns the tasks of the versions of a user message: an edit keeps the id by which clients know a message.

    The first one is the one that waits, then comes the one on the current branch, then the newest: MAX_VERSIONS of
    them. Empty if there is no such message.
    """
    waiting = await find_waiting(c, session_id, message_id)
    ids = [TaskId(row["task_id"]) for row in await c.fetch(_VERSIONS, session_id, message_id, MAX_VERSIONS)]
    stored = {task.id: task for task in await tasks.find_tasks(c, ids, brief=True)}
    return [*([waiting] if waiting is not None else []), *(stored[id] for id in ids if id in stored)]


async def turns_named(c: Connection, session_id: SessionId, message_id: str) -> list[Task]:
    """Returns the turns that a client means by the id of a user message or of an answer: the active one first.

    The id of an answer that has not ended means its turn alone, and the id of a message that the active turn has taken
    in means that turn. Any other id means all turns that answer the user message and have not ended, with the edits and
    regenerations that wait. If all have ended, returns one of these. Empty if no message of the session has this id.
    """
    answer = await _find_answer(c, session_id, message_id)
    if answer is not None and not answer.status.ended:
        return [answer]
    asked = answer.question_id if answer is not None else message_id
    active = await tasks.find_active_task(c, session_id)
    unended = [*([active] if active is not None else []), *await tasks.queued_tasks(c, session_id)]
    if found := [task for task in unended if task.question_id == asked]:
        return found
    ended = answer or await tasks.find_task_by_key(c, session_id, message_id)
    if ended is not None and active is not None and ended.taken_by == active.id:
        return [active]
    return [ended] if ended is not None else []


async def _find_answer(c: Connection, session_id: SessionId, message_id: str) -> Task | None:
    """Returns the task whose answer has this id. Clients may give their own messages ids that begin alike."""
    if not message_id.startswith(ANSWER_ID):
        return None
    found = await tasks.find_tasks(c, [TaskId(message_id.removeprefix(ANSWER_ID))])
    return next((task for task in found if task.session_id == session_id), None)


async def _change_waiting(c: Connection, session_id: SessionId, message_id: str, edit: TurnRequest) -> Task | None:
    waiting = await find_waiting(c, session_id, message_id)
    if waiting is None:
        return None
    files = edit.files or waiting.request.files
    if (waiting.request.text, waiting.request.files) == (edit.text, files):
        return waiting
    changed = replace(
        waiting.request, text=edit.text, data=edit.data, metadata=edit.metadata, files=files, choice=edit.choice
    )
    return await tasks.change_request(c, waiting.id, changed)


async def _find_by_key(
    c: Connection, session_id: SessionId, request: TurnRequest, message_key: str | None
) -> Task | None:
    known = await tasks.find_task_by_key(c, session_id, message_key) if message_key is not None else None
    if known is not None and _content_of(known.request) != _content_of(request):
        raise IdempotencyKeyReused
    return known


def _content_of(request: TurnRequest) -> tuple[object, ...]:
    """Returns what tells two messages apart. A data URL that is sent again may have been stored as another file."""
    files = [(file.media_type, file.filename, file.size) for file in request.files]
    return (request.text, request.context, files)
