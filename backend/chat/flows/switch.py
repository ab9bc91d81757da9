"""Switches a session to another of its branches, and adopts branches that older versions made."""

from __future__ import annotations

from backend.chat.models import ANSWER_ID, Caller, Role
from backend.chat.resources import Resources
from backend.chat.store import branches, messages, sessions
from backend.chat.streams.event_feed import Hint
from backend.errors import MessageNotFound
from backend.ids import SessionId
from backend.postgres import Connection


async def switch_branch(resources: Resources, caller: Caller, session_id: SessionId, message: str) -> str:
    """Switches to the newest branch that contains this message. Returns the id of the last message of that branch.

    `message` is its name in the tree, or the id that its client gave it. A running turn continues on its own branch.
    Raises SessionNotFound, MessageNotFound, Unavailable.
    """
    async with resources.database.transaction() as c:
        session = await sessions.get_session(c, session_id, caller, lock=True)
        name = await branches.last_known(c, session_id, [message])
        leaf = await _leaf_through(c, session_id, name) if name is not None else None
        if not leaf:  # None, or 0: no message is at the beginning
            raise MessageNotFound
        changed = await branches.make_current(c, session_id, leaf, await branches.task_at(c, session_id, leaf))
        [last] = await messages.visible_messages(c, session_id, limit=1)
    if changed:
        resources.feed.publish(Hint.BRANCH_CHANGED, session_id, session.user_id)
    return last.shown_id if last.role is Role.USER and not last.steered else f"{ANSWER_ID}{last.task_id}"


async def adopt_branches(resources: Resources, session_id: SessionId) -> None:
    """Places the branches that older versions made in the session's tree."""
    async with resources.database.transaction() as c:
        if await sessions.lock_session(c, session_id):
            await branches.adopt(c, session_id)


async def _leaf_through(c: Connection, session_id: SessionId, name: str) -> int | None:
    start = await branches.start_of(c, session_id, name)
    if start is None:  # an answer without messages, or a message that waits
        return await branches.end_of(c, session_id, name)
    return await branches.end_of_branch(c, session_id, start)
