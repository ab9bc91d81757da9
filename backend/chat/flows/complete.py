"""Gives an operation its outcome. No other code does.

An outcome comes by webhook, by `chat:completions`, from the user, at the deadline, or at once. One transaction stores
it with the tool message and an agent that came with it, and queues the operation's task for its continuation. The first
outcome wins; the same outcome again changes nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

from backend.chat.flows.finish import end_unowned
from backend.chat.flows.start import announce_start, store_user_message
from backend.chat.keys import stream_key
from backend.chat.models import Json, TaskStatus, ToolResultPart, Turn
from backend.chat.outcomes import ABANDONED, AGENT_PLATFORM, DISMISSED, EXPIRED, Operation, Outcome, Progress
from backend.chat.protocol.chunks import encode
from backend.chat.protocol.chunks_from_rows import progress_chunk
from backend.chat.resources import Resources
from backend.chat.store import messages, operations, remote_tasks, sessions, tasks
from backend.chat.store.operations import Continuation
from backend.chat.streams.event_feed import Hint
from backend.errors import AlreadyCompleted, OperationGone, OperationNotFound, Unavailable
from backend.failpoints import reach
from backend.ids import OperationId, TaskId, fence_of
from backend.postgres import Connection

SHOWING_LIMIT = 2.0
"""Seconds that a progress message may take to be written to Redis."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The result of completing an operation.

    `replayed` is true if the same outcome was stored before. The caller publishes `next_turn`, which may run now.
    """

    task_id: TaskId
    replayed: bool
    next_turn: Turn | None = None


async def complete_operation(
    resources: Resources, operation_id: OperationId, outcome: Outcome, *, by_user: bool = False
) -> Completed:
    """Stores an outcome durably. The conversation continues with it as soon as the session is free.

    Only the user (`by_user`), the deadline and the death of its runner end a question; to services it does not exist.
    A question for which a call waits has no continuation. Raises OperationNotFound,
    AlreadyCompleted (a different outcome is stored), OperationGone (cancelled or timed out) and Unavailable.
    """
    from backend.chat.flows.results import note_for, result_of  # slow: builds the models of all tool responses (15 ms)

    async with resources.database.connection() as c:
        seen = await operations.get_operation(c, operation_id)
    if (seen.work.asks is not None) != by_user and outcome not in (EXPIRED, ABANDONED):
        raise OperationNotFound
    if not seen.pending:
        return await _repeated(resources, seen, outcome)
    if seen.is_live:
        return await _finish_live(resources, seen, outcome)
    async with resources.database.transaction() as c:
        operation = await _locked(c, seen)
        if not operation.pending:
            return _judge(operation, outcome)
        result = (
            None
            if operation.approved_by(outcome)
            else await result_of(c, operation, outcome, most_agents=resources.settings.max_agents)
        )
        continuation = await operations.continue_operation(c, operation, outcome, result, note_for(operation, outcome))
        if continuation is Continuation.LATE:
            raise OperationGone
        active = continuation is Continuation.ACTIVE
        if result is not None:
            await _give_result(c, operation, result)
        if operation.work.remote == AGENT_PLATFORM and outcome not in (EXPIRED, ABANDONED):
            await remote_tasks.forget(c, operation.task_id)  # the platform has ended it, so it need not be stopped
        if active:
            await store_user_message(c, await tasks.get_task(c, operation.task_id))
    reach("after_completion_commit")
    _announce_end(resources, operation, outcome)
    if active:
        announce_start(resources, operation.session_id, operation.user_id, operation.task_id)
    return Completed(
        operation.task_id, replayed=False, next_turn=Turn(operation.task_id, operation.session_id) if active else None
    )


async def _finish_live(resources: Resources, seen: Operation, outcome: Outcome) -> Completed:
    """Ends a question for which a call waits; the executor of the call sees the end. Raises as `complete_operation`."""
    from backend.chat.flows.results import result_of  # slow, see above

    async with resources.database.transaction() as c:
        operation = await _locked(c, seen)
        if not operation.pending:
            return _judge(operation, outcome)
        result = await result_of(c, operation, outcome, most_agents=resources.settings.max_agents)
        if not await operations.finish_operation(c, operation, outcome, result):
            raise OperationGone
    _announce_end(resources, operation, outcome)
    return Completed(operation.task_id, replayed=False)


async def settle_operation(resources: Resources, seen: Operation, outcome: Outcome) -> Json | None:
    """Ends an operation that was answered at once. No continuation follows; the caller delivers the returned result.

    Returns None if another outcome was stored first; the conversation continues with that one. An operation that its
    service has accepted is completed instead, because it has a stream that must end, and pages that show it. Raises
    OperationNotFound, Unavailable.
    """
    from backend.chat.flows.results import result_of  # slow, see above

    async with resources.database.transaction() as c:
        operation = await _locked(c, seen)
        if not operation.pending:
            return None
        if not operation.opened:
            result = await result_of(c, operation, outcome, most_agents=resources.settings.max_agents)
            if not await operations.finish_operation(c, operation, outcome, result):
                return None
            await _give_result(c, operation, result)
            return result
    with suppress(AlreadyCompleted, OperationGone):
        done = await complete_operation(resources, operation.id, outcome)
        if done.next_turn is not None:
            await resources.outbox.publish(done.next_turn)
    return None


async def expire_operation(resources: Resources, overdue: Operation) -> Completed | None:
    """Ends an operation that passed its deadline, or whose cancellation was requested but never carried out.

    An operation that its service never accepted ends silently, and None is returned: it has no continuation.
    """
    if overdue.cancel_requested:
        async with resources.database.connection() as c:
            task = await tasks.get_task(c, overdue.task_id)
        await end_unowned(resources, task, TaskStatus.CANCELLED)
        return None
    if overdue.opened or overdue.is_live:
        return await complete_operation(resources, overdue.id, EXPIRED)
    await settle_operation(resources, overdue, EXPIRED)
    return None


async def tell_progress(resources: Resources, operation_id: OperationId, progress: Progress) -> None:
    """Stores and shows the newest progress of an operation. Raises OperationNotFound, OperationGone, Unavailable."""
    async with resources.database.connection() as c:
        operation = await operations.get_operation(c, operation_id)
        if operation.work.asks is not None:
            raise OperationNotFound  # a question has no progress
        attempt = await operations.note_progress(c, operation, progress) if operation.pending else None
    if attempt is None:
        raise OperationGone("This operation has ended.")
    with suppress(Unavailable, TimeoutError):  # it is stored in the session, and the next one follows
        key = stream_key(operation.session_id, operation.task_id)
        body = encode(progress_chunk(operation, progress))
        async with asyncio.timeout(SHOWING_LIMIT):
            await resources.streams.note(key, fence_of(operation.number, attempt), body)
    resources.feed.publish(
        Hint.OPERATION_PROGRESS,
        operation.session_id,
        operation.user_id,
        task_id=operation.task_id,
        operation_id=operation.id,
        percent=progress.percent,
        message=progress.message,
    )


async def _locked(c: Connection, seen: Operation) -> Operation:
    """Locks the session, then the operation, the order that every flow uses. Raises OperationNotFound."""
    if not await sessions.lock_session(c, seen.session_id):
        raise OperationNotFound
    return await operations.get_operation(c, seen.id, lock=True)


async def _give_result(c: Connection, operation: Operation, result: Json) -> None:
    work = operation.work
    await messages.give_result(c, work.turn, ToolResultPart(work.tool_call_id, work.tool_name, result))


async def _repeated(resources: Resources, operation: Operation, outcome: Outcome) -> Completed:
    """Answers as `_judge` does. Announces an outcome whose continuation waits to be claimed.

    The request that stored it may have lost the reply to its commit, and told nobody.
    """
    judged = _judge(operation, outcome)
    if operation.status is not TaskStatus.QUEUED:
        return judged
    async with resources.database.connection() as c:
        task = await tasks.get_task(c, operation.task_id)
    if not task.active or task.owner is not None:
        return judged
    _announce_end(resources, operation, outcome)
    announce_start(resources, task.session_id, task.user_id, task.id)
    return replace(judged, next_turn=Turn(task.id, task.session_id))


def _judge(operation: Operation, outcome: Outcome) -> Completed:
    """Answers an outcome that arrives after the operation has ended.

    Raises OperationGone, or AlreadyCompleted if a different outcome is stored.
    """
    if operation.digest == outcome.digest:
        return Completed(operation.task_id, replayed=True)
    if operation.digest in (None, EXPIRED.digest, DISMISSED.digest):
        raise OperationGone
    if operation.is_live and operation.digest == ABANDONED.digest:
        raise OperationGone
    raise AlreadyCompleted


def _announce_end(resources: Resources, operation: Operation, outcome: Outcome) -> None:
    resources.feed.publish(
        Hint.OPERATION_FINISHED,
        operation.session_id,
        operation.user_id,
        task_id=operation.task_id,
        operation_id=operation.id,
        tool_name=operation.work.tool_name,
        status="completed" if outcome.success else "failed",
    )
