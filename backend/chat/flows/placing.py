"""Finds the place of a turn in the tree of its session's messages.

The place is chosen when the turn is accepted and looked up when it begins. Other turns may run in between, so a request
names the message that it follows, not a place.
"""

from __future__ import annotations

from dataclasses import replace

from backend.chat.models import ANSWER_ID, OWN_MESSAGE_ID, After, Message, Task, TaskKind, TurnRequest
from backend.chat.store import branches, messages, tasks
from backend.errors import MessageNotFound
from backend.ids import SessionId
from backend.postgres import Connection


async def with_parent(
    c: Connection,
    session_id: SessionId,
    request: TurnRequest,
    after: After | None,
    running: Task | None,
    *,
    ahead: bool = False,
) -> TurnRequest:
    """Returns the request of a new message with the message that it follows. Leaves edits and regenerations alone.

    `after` is what the client says, `running` the active task. `ahead`: the new turn runs before those that wait. The
    caller holds the session's lock. Raises MessageNotFound if the client names a parent that the session does not have.
    """
    if request.text is None or request.revises is not None:
        return request
    known = await branches.last_known(c, session_id, after.ids) if after is not None and after.ids else None
    if after is not None and after.exact:
        if known is None and after.known:
            raise MessageNotFound
        return replace(request, parent=known or "", branches=True)
    if known is not None:
        return replace(request, parent=known, branches=running is None and await _was_cut(c, session_id, known))
    if running is None:
        return request
    return replace(request, parent=await _newest_name(c, session_id, ahead=ahead))


_ASKED_LATER = """
SELECT EXISTS (
    SELECT FROM messages m JOIN tasks t ON t.id = m.task_id
    WHERE m.session_id = $1 AND m.sequence > $2 AND m.superseded_by IS NULL AND m.role = 'user' AND m.step = 0
      AND t.kind = 'turn' AND coalesce((t.request->>'is_user_message')::boolean, true))"""


async def _was_cut(c: Connection, session_id: SessionId, known: str) -> bool:
    """Returns True if the user has asked something after this message, so that a list which ends with it was cut.

    Notes of the server do not count. The session has no active task.
    """
    end = await branches.end_of(c, session_id, known)
    if end is None:
        return False
    if await branches.is_on_current(c, session_id, end):
        return bool(await c.fetchval(_ASKED_LATER, session_id, end))
    return await branches.end_of_branch(c, session_id, end) != end


async def _newest_name(c: Connection, session_id: SessionId, *, ahead: bool) -> str:
    """Returns the name of the newest waiting message of a user. If none waits, or `ahead`, returns the leaf's name.

    Turns that the server has begun do not count, since they may belong to another branch.
    """
    if not ahead and (waiting := [task for task in await tasks.queued_tasks(c, session_id) if is_asked_for(task)]):
        last = waiting[-1]
        return f"{ANSWER_ID if last.request.text is None else OWN_MESSAGE_ID}{last.id}"
    for leaf in await messages.visible_messages(c, session_id, limit=1):
        return f"{OWN_MESSAGE_ID if leaf.step == 0 else ANSWER_ID}{leaf.task_id}"
    return ""


def follows_the_leaf(request: TurnRequest) -> bool:
    """Returns True if a new message names no place: it goes to the end of the branch that is the current one then."""
    return request.text is not None and request.revises is None and not request.parent and not request.branches


async def place_of(c: Connection, task: Task) -> int:
    """Returns the place that the messages of a task will follow. The task is about to become active.

    An edit goes beside the message that it names. A regeneration goes beside the answers to the version that it names,
    or else to the last question. Anything else goes to the end of the branch of its parent, or beside what follows its
    parent if it branches off. The caller holds the session's lock.
    """
    session_id, request = task.session_id, task.request
    if request.text is None and request.parent:
        again = await branches.end_of(c, session_id, request.parent)
        if again is not None:  # otherwise the question was cancelled while it waited
            return again
    if request.revises is not None or request.text is None:
        asked = await _revised(c, task)
        if asked is not None:
            return asked.sequence if request.text is None else await branches.parent_of(c, asked)
    if not request.parent:
        return 0 if request.branches else await branches.leaf_of(c, session_id)
    end = await branches.end_of(c, session_id, request.parent)
    if end is None:  # cancelled while it waited
        return await branches.leaf_of(c, session_id)
    return end if request.branches else await branches.end_of_branch(c, session_id, end)


async def _revised(c: Connection, task: Task) -> Message | None:
    session_id, request = task.session_id, task.request
    asked = None
    if request.revises is not None:
        asked = await messages.find_user_message(c, session_id, request.revises)
    if asked is None and request.text is None:
        asked = await messages.last_user_message(c, session_id)
    return asked


def is_asked_for(task: Task) -> bool:
    """Returns True if a user asked for this turn, so that its branch becomes the current one when it begins."""
    return task.kind is TaskKind.TURN and task.request.is_user_message
