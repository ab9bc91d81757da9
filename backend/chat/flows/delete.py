"""Deletes sessions with everything that belongs to them: one, all of a user, or those that have expired."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from backend.chat import keys
from backend.chat.flows import cancel
from backend.chat.flows.sign_in import revoke_grants
from backend.chat.models import Caller, Task
from backend.chat.oauth.sealing import Seal
from backend.chat.resources import Resources
from backend.chat.store import sessions, tasks
from backend.chat.streams.event_feed import Hint
from backend.errors import SessionNotFound, Unavailable
from backend.ids import SessionId, TaskId, UserId

STREAMS_WAIT = 1.0
"""Seconds for telling executors and deleting the streams of a session. Streams that are left expire by their TTL."""
AT_ONCE = 8
"""Sessions of a user that are deleted at the same time."""


async def delete_session(resources: Resources, caller: Caller, session_id: SessionId) -> None:
    """Cancels every task of the session, waits up to CANCEL_WAIT for them to end, then deletes its rows and streams.

    Raises SessionNotFound, Unavailable.
    """
    await _delete(resources, caller, session_id, until=time.monotonic() + cancel.CANCEL_WAIT)


async def delete_user(resources: Resources, caller: Caller, user_id: UserId, seal: Seal | None = None) -> None:
    """Deletes all that is stored of a user: sessions with their tasks, messages and streams, agents, and facts.

    Cancels what still runs in all of them before it deletes any, and waits up to CANCEL_WAIT once. Can be called again
    after a failure. Last of all, revokes the user's tokens for tool servers, which `seal` opens. Raises Unavailable.
    """
    until = time.monotonic() + cancel.CANCEL_WAIT
    async with resources.database.transaction() as c:
        busy = await sessions.lock_busy_sessions(c, user_id)
        cancelling = await tasks.request_cancel_of_sessions(c, busy)
    await _end(resources, cancelling, until)
    while True:
        async with resources.database.transaction() as c:
            found = await sessions.sessions_of(c, user_id, AT_ONCE)
            if not found:
                forgotten = await sessions.forget_user(c, user_id)
                break
        await asyncio.gather(*(_delete_if_there(resources, caller, session_id, until) for session_id in found))
    await revoke_grants(seal, forgotten)


async def delete_expired(resources: Resources, days: int, found: Sequence[SessionId]) -> int:
    """Deletes those of these sessions in which nothing has happened for `days` days. Returns their number.

    Raises Unavailable.
    """
    deleted = 0
    for session_id in found:
        async with resources.database.transaction() as c:
            session = await sessions.lock_expired(c, session_id, days)
            if session is None:
                continue
            task_ids = await sessions.delete_session(c, session_id)
        await _publish_and_clean(resources, session_id, session.user_id, task_ids)
        deleted += 1
    return deleted


async def _delete_if_there(resources: Resources, caller: Caller, session_id: SessionId, until: float) -> None:
    with contextlib.suppress(SessionNotFound):
        await _delete(resources, caller, session_id, until)


async def _delete(resources: Resources, caller: Caller, session_id: SessionId, until: float) -> None:
    """Deletes the session in the same transaction that finds nothing running or waiting in it.

    A turn that was accepted meanwhile is cancelled like the others. At the moment `until`, or if an end cannot be
    confirmed, deletes it in spite of unended tasks, and tells the executors that run these.
    """
    confirmed = True
    while True:
        async with resources.database.transaction() as c:
            session = await sessions.get_session(c, session_id, caller, lock=True)
            unended = await tasks.request_cancel_of_sessions(c, [session_id])
            if deleting := not (unended and confirmed and time.monotonic() < until):
                task_ids = await sessions.delete_session(c, session_id)
        if deleting:
            break
        confirmed = await _end(resources, unended, until)
    await _publish_and_clean(resources, session_id, session.user_id, task_ids, unended)


async def _end(resources: Resources, cancelling: Sequence[Task], until: float) -> bool:
    """Ends these tasks together. Returns False if one of them did not end by `until`."""
    within = until - time.monotonic()
    return all(await asyncio.gather(*(cancel.end_cancelled(resources, task, within=within) for task in cancelling)))


async def _publish_and_clean(
    resources: Resources,
    session_id: SessionId,
    user_id: UserId | None,
    task_ids: Sequence[TaskId],
    unended: Sequence[Task] = (),
) -> None:
    """Tells pages, and the executors that run the unended tasks, that the session is gone. Deletes its streams.

    An executor that is not told finds its claim gone within a second.
    """
    resources.feed.publish(Hint.SESSION_DELETED, session_id, user_id)
    with contextlib.suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(STREAMS_WAIT):
            owned = [task.id for task in unended if task.owner is not None]
            await asyncio.gather(*(resources.turn_queue.publish_cancel(task_id) for task_id in owned))
            for task_id in task_ids:
                await resources.streams.delete(keys.stream_key(session_id, task_id))
