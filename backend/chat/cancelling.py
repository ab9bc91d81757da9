"""Ending what runs, waits or goes on outside: cancel_task, delete_session, and the end of a task that nobody runs."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from backend.chat import keys, sessions, tasks
from backend.chat.endings import ensure_terminal, write_whole_end
from backend.chat.feed import Hint
from backend.chat.flows import House, end_task, tell_executors
from backend.chat.models import Caller, Task, TaskError, TaskKind, TaskStatus
from backend.chat.reading import wait_for_end
from backend.chat.snapshot import terminal_chunks
from backend.errors import AttemptEnded, Fenced, StreamCut, Unavailable
from backend.ids import SessionId, TaskId

CANCEL_WAIT = 5.0
STREAMS_WAIT = 1.0


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What came of a wish to cancel. `reason` says why not, or that the executor has not confirmed in time."""

    cancelled: bool
    task_id: TaskId | None = None
    reason: str | None = None


async def cancel_task(house: House, task: Task) -> Cancelled:
    """Cancels a task, running or waiting. The wish is in Postgres at once and wins; waits at most 5 s for the end."""
    async with house.database.connection() as c:
        wished = await tasks.request_cancel(c, task.id)
    if wished is None:
        return Cancelled(False, None, "no_active_task")
    confirmed = await _end_cancelled(house, wished)
    return Cancelled(True, task.id, None if confirmed else "cancel_published_not_confirmed")


async def _end_cancelled(house: House, wished: Task) -> bool:
    """Brings a task on which a cancel is wished to its end. False: it was not seen to end within CANCEL_WAIT."""
    try:
        async with asyncio.timeout(CANCEL_WAIT):
            nobodys = wished.owner is None and (wished.status is TaskStatus.QUEUED or wished.kind is TaskKind.OPERATION)
            if not nobodys or not await end_unowned(house, wished, TaskStatus.CANCELLED):
                await tell_executors(house, wished.id)
                await wait_for_end(house.hub, house.streams, wished)
    except (TimeoutError, StreamCut, Unavailable):
        return False
    return True


async def end_unowned(house: House, task: Task, status: TaskStatus, error: TaskError | None = None) -> bool:
    """Ends a task that no executor has: claims it first, so that its stream's end has a fence of its own.

    False: somebody else has it, or it is gone. If this is stopped in between, the sweeper finds the claim of somebody
    without a heartbeat.
    """
    async with house.database.connection() as c:
        claimed = await tasks.claim_task(
            c, task.id, house.me, seen_owner=None, seen_attempt=task.attempt, only_active=False
        )
    if claimed is None:
        return False
    try:
        ending = await end_task(house, claimed, status=status, error=error)
    except Fenced:  # deleted with its session, or taken over: this process may have no heartbeat
        return False
    if ending.next_turn is not None:
        await house.outbox.publish(ending.next_turn)
    with contextlib.suppress(AttemptEnded, Unavailable):  # readers end from the row when the stream cannot be written
        if task.attempt:
            chunks = terminal_chunks(ending.task, step_open=False)
            await ensure_terminal(house.streams, house.flusher, ending.task, chunks)
        else:
            await write_whole_end(house.flusher, ending.task)
    return True


async def delete_session(house: House, caller: Caller, session_id: SessionId) -> None:
    """Cancels all that runs and waits in the session, waits at most 5 s for it, then deletes its rows and streams."""
    async with house.database.transaction() as c:
        await sessions.get_session(c, session_id, caller, lock=True)
        wished = await tasks.request_cancel_of_session(c, session_id)
    await asyncio.gather(*(_end_cancelled(house, task) for task in wished))
    async with house.database.transaction() as c:
        await sessions.get_session(c, session_id, caller, lock=True)
        task_ids = await sessions.delete_session(c, session_id)
    house.feed.tell(Hint.SESSION_DELETED, session_id, caller.user_id)
    with contextlib.suppress(Unavailable, TimeoutError):  # what is left of them has a TTL
        async with asyncio.timeout(STREAMS_WAIT):
            for task_id in task_ids:
                await house.streams.delete(keys.stream_key(session_id, task_id))
