"""The one place where an operation gets its outcome: by webhook, by `chat:completions`, at its deadline, or at once.

All that follows is one transaction: the outcome, the tool message, an agent that came with it, and the operation's task
queued for its continuation. Whoever is first decides; the same outcome again changes nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from backend.chat import messages, operations, sessions, tasks
from backend.chat.cancelling import end_unowned
from backend.chat.chunks import encode
from backend.chat.feed import Hint
from backend.chat.flows import House, announce_start, open_turn
from backend.chat.keys import stream_key
from backend.chat.models import Json, TaskStatus, ToolResultPart, Turn
from backend.chat.outcomes import EXPIRED, Operation, Outcome, Progress
from backend.chat.snapshot import progress_chunk
from backend.errors import AlreadyCompleted, OperationGone, OperationNotFound, Unavailable
from backend.failpoints import reach
from backend.ids import OperationId, TaskId, fence_of
from backend.postgres import Connection

SHOWING_LIMIT = 2.0
"""Seconds that a word about progress waits for Redis."""


@dataclass(frozen=True, slots=True)
class Completed:
    """`replayed`: this outcome was there already. `next_turn` may run now: the caller publishes it."""

    task_id: TaskId
    replayed: bool
    next_turn: Turn | None = None


async def complete_operation(house: House, operation_id: OperationId, outcome: Outcome) -> Completed:
    """Applies an outcome; afterwards it is never lost, and the conversation goes on when the session is free.

    Raises OperationNotFound, AlreadyCompleted (another outcome stands), OperationGone (cancelled, or its time is over)
    and Unavailable.
    """
    from backend.chat.results import note_for, result_of  # the models of all tool responses: 15 ms

    async with house.database.connection() as c:
        seen = await operations.get_operation(c, operation_id)
    if not seen.outside:
        return _judge(seen, outcome)
    async with house.database.transaction() as c:
        operation = await _locked(c, seen)
        if not operation.outside:
            return _judge(operation, outcome)
        result = await result_of(c, operation, outcome)
        active = await operations.continue_operation(c, operation, outcome, result, note_for(operation, outcome))
        if active is None:
            raise OperationGone
        await _give_result(c, operation, result)
        if active:
            await open_turn(c, await tasks.get_task(c, operation.task_id))
    reach("after_completion_commit")
    _announce_end(house, operation, outcome)
    if active:
        announce_start(house, operation.session_id, operation.user_id, operation.task_id)
    return Completed(
        operation.task_id, replayed=False, next_turn=Turn(operation.task_id, operation.session_id) if active else None
    )


async def settle_operation(house: House, seen: Operation, outcome: Outcome) -> Json | None:
    """Ends an operation that was answered at once: its result is the caller's to tell, and nothing continues.

    None when another outcome was faster; then that one continues. Raises OperationNotFound, Unavailable.
    """
    from backend.chat.results import result_of  # as above

    async with house.database.transaction() as c:
        operation = await _locked(c, seen)
        if not operation.outside:
            return None
        result = await result_of(c, operation, outcome)
        if not await operations.settle_operation(c, operation, outcome, result):
            return None
        await _give_result(c, operation, result)
    return result


async def expire_operation(house: House, overdue: Operation) -> Completed | None:
    """Gives up an operation whose time is over, or whose cancel nobody saw through. One that was never accepted by its
    service ends without a word."""
    if overdue.cancel_requested:
        async with house.database.connection() as c:
            task = await tasks.get_task(c, overdue.task_id)
        await end_unowned(house, task, TaskStatus.CANCELLED)
        return None
    if overdue.opened:
        return await complete_operation(house, overdue.id, EXPIRED)
    await settle_operation(house, overdue, EXPIRED)
    return None


async def tell_progress(house: House, operation_id: OperationId, progress: Progress) -> None:
    """Keeps and shows the newest word about an operation. Raises OperationNotFound, OperationGone, Unavailable."""
    async with house.database.connection() as c:
        operation = await operations.get_operation(c, operation_id)
        attempt = await operations.note_progress(c, operation, progress) if operation.outside else None
    if attempt is None:
        raise OperationGone("This operation has ended.")
    with suppress(Unavailable, TimeoutError):  # it stands in the session, and the next word comes
        key = stream_key(operation.session_id, operation.task_id)
        body = encode(progress_chunk(operation, progress))
        async with asyncio.timeout(SHOWING_LIMIT):
            await house.streams.note(key, fence_of(operation.number, attempt), body)
    house.feed.tell(
        Hint.OPERATION_PROGRESS,
        operation.session_id,
        operation.user_id,
        task_id=operation.task_id,
        operation_id=operation.id,
        percent=progress.percent,
        message=progress.message,
    )


async def _locked(c: Connection, seen: Operation) -> Operation:
    """The operation with its session and itself locked, in the order of every flow."""
    if not await sessions.lock_session(c, seen.session_id):
        raise OperationNotFound
    return await operations.get_operation(c, seen.id, lock=True)


async def _give_result(c: Connection, operation: Operation, result: Json) -> None:
    work = operation.work
    await messages.give_result(c, work.turn, ToolResultPart(work.tool_call_id, work.tool_name, result))


def _judge(operation: Operation, outcome: Outcome) -> Completed:
    """What an outcome gets that comes for an operation that is not outside any more."""
    if operation.digest == outcome.digest:
        return Completed(operation.task_id, replayed=True)
    if operation.digest is None or operation.digest == EXPIRED.digest:
        raise OperationGone
    raise AlreadyCompleted


def _announce_end(house: House, operation: Operation, outcome: Outcome) -> None:
    house.feed.tell(
        Hint.OPERATION_FINISHED,
        operation.session_id,
        operation.user_id,
        task_id=operation.task_id,
        operation_id=operation.id,
        tool_name=operation.work.tool_name,
        status="completed" if outcome.success else "failed",
    )
