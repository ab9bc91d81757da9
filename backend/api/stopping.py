"""Stopping an answer, even if the stop overtakes the message that it is meant for.

A page sends both over connections of their own, so the stop may be read first. If it names the message, it is kept for
KEPT_S. Otherwise it waits for messages that are being accepted, and a moment for one that is still on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from redis.exceptions import RedisError

from backend.api.state import ApiState
from backend.chat.flows import cancel
from backend.chat.flows.cancel import Cancelled
from backend.chat.keys import stop_key
from backend.chat.models import Caller, Task, Turn
from backend.chat.store import revisions, sessions, tasks
from backend.errors import SessionNotFound, Unavailable
from backend.ids import SessionId

KEPT_S = 60
"""Seconds for which a stop waits for the message that it names: longer than an upload may take."""
GRACE_S = 0.25
"""Seconds for which a stop that finds nothing to stop waits for a message."""
JUST_ENDED_S = 2.0
"""A stop that comes so soon after an answer's end was meant for that answer."""
NOTHING = Cancelled(False, reason="no_active_task")
logger = logging.getLogger(__name__)


async def stop_session(api: ApiState, caller: Caller, session_id: SessionId) -> Cancelled:
    """Cancels the running turn, or the one whose message is just arriving. Raises SessionNotFound."""
    keys = (session_id, caller.quota_key)
    task = await _running(api, caller, session_id)
    if task is None and (keys in api.arrivals or not await _has_just_ended(api, session_id)):
        await api.arrivals.begun(keys, within=GRACE_S)
        await api.arrivals.settled(keys, within=cancel.CANCEL_WAIT)
        task = await _running(api, caller, session_id)
    if task is None:
        async with api.resources.database.connection() as c:
            await sessions.get_session(c, session_id, caller)
        return NOTHING
    return await cancel.cancel_task(api.resources, task)


async def stop_message(api: ApiState, caller: Caller, session_id: SessionId, message_id: str) -> Cancelled:
    """Cancels the turns of a message, running or waiting: its own, and those that revise it.

    `message_id` is the id of the user's message or of an answer to it. If the message has not arrived yet, it is
    cancelled when it does. Its session may not exist yet, because its first message creates it. Raises Unavailable.
    """
    keys = (session_id, caller.quota_key)
    named = await _named(api, caller, session_id, message_id)
    if all(task.status.ended for task in named) and await _may_be_arriving(api, keys, session_id, known=bool(named)):
        named = await _named(api, caller, session_id, message_id)
    if not named:
        try:
            await api.resources.redis.set(stop_key(session_id, caller.quota_key, message_id), b"1", ex=KEPT_S)
        except RedisError:
            raise Unavailable from None
        named = await _named(api, caller, session_id, message_id)  # it may have arrived before the stop was stored
    if not named:
        return Cancelled(True, reason="message_not_received")
    cancelled = await asyncio.gather(*(cancel.cancel_task(api.resources, task) for task in named))
    return cancelled[0]


async def _may_be_arriving(api: ApiState, keys: tuple[str, str], session_id: SessionId, *, known: bool) -> bool:
    """Waits until messages that are on their way are accepted. Returns False if none is.

    If the message is `known`, waits a moment for a revision of it, unless an answer has just ended: the stop was then
    meant for that one.
    """
    if keys not in api.arrivals:
        if not known or await _has_just_ended(api, session_id):
            return False
        await api.arrivals.begun(keys, within=GRACE_S)
    await api.arrivals.settled(keys, within=cancel.CANCEL_WAIT)
    return True


async def publish_unless_stopped(api: ApiState, caller: Caller, task: Task) -> None:
    """Puts a new turn on the queue if it is active, or cancels it if a stop has overtaken its message."""
    message_id = task.question_id
    if message_id is not None and await _take_stop(api, stop_key(task.session_id, caller.quota_key, message_id)):
        await cancel.cancel_task(api.resources, task)
    elif task.active:
        await api.resources.outbox.publish(Turn(task.id, task.session_id))


async def _take_stop(api: ApiState, key: str) -> bool:
    try:
        return await api.resources.redis.getdel(key) is not None
    except RedisError as error:  # the turn cannot run without Redis either
        logger.warning("could not look for a stop", extra={"error": repr(error)})
        return False


async def _running(api: ApiState, caller: Caller, session_id: SessionId) -> Task | None:
    """Returns the session's active task. Waits for a message that another process is accepting (the session's lock).

    Returns None even if there is no such session: its first message may be arriving.
    """
    with suppress(SessionNotFound):
        async with api.resources.database.transaction() as c:
            await sessions.get_session(c, session_id, caller, lock=True)
            return await tasks.find_active_task(c, session_id)
    return None


async def _named(api: ApiState, caller: Caller, session_id: SessionId, message_id: str) -> Sequence[Task]:
    """Returns the turns that are meant by this id (`revisions.turns_named`). Empty if the message has not come.

    Empty also if the session is another user's, so that it looks like one that does not exist yet.
    """
    async with api.resources.database.transaction() as c:
        try:
            await sessions.get_session(c, session_id, caller, lock=True)
        except SessionNotFound:
            return []
        return await revisions.turns_named(c, session_id, message_id)


async def _has_just_ended(api: ApiState, session_id: SessionId) -> bool:
    async with api.resources.database.connection() as c:
        return await tasks.has_just_ended(c, session_id, within=JUST_ENDED_S)
