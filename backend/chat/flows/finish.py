"""Ends a turn: end_task for its owner, end_unowned if no executor runs it. No other code ends a turn.

Two modules of the store end other tasks, which have no stream, no usage and no turn that waits for them:
`store/operations.py` those of operations that were answered at once or never opened, and of questions for which a
running call waits; `take_steers` in `store/tasks.py` those of messages that a running turn takes in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from backend.chat.flows.closing import continue_after_last
from backend.chat.flows.start import announce_start, store_user_message
from backend.chat.flows.steering import newly_taken_in_by, take_in
from backend.chat.models import (
    AnswerEnd,
    EndedTask,
    Message,
    NewMessage,
    Task,
    TaskError,
    TaskKind,
    TaskStatus,
    ToolResultPart,
    Turn,
    Usage,
)
from backend.chat.protocol.chunks_from_rows import terminal_chunks
from backend.chat.resources import Resources
from backend.chat.store import messages, operations, questions, sessions, tasks
from backend.chat.streams.event_feed import Hint
from backend.chat.streams.terminal import ensure_terminal, write_whole_end
from backend.errors import AttemptEnded, Fenced, Unavailable
from backend.ids import StreamId
from backend.postgres import Connection


async def append_new_messages(c: Connection, task: Task, step: int, new_messages: Sequence[NewMessage]) -> None:
    """Writes the messages of one commit and locks the session's row.

    A call whose operation already has a result gets that result, instead of being pending or cut short: the outcome
    may arrive before the tool message of the turn that began the operation.
    """
    open_calls = [
        p.tool_call_id for m in new_messages for p in m.parts if isinstance(p, ToolResultPart) and p.awaits_result
    ]
    await sessions.lock_session(c, task.session_id)
    if open_calls:
        results = await operations.results_of(c, task.session_id, open_calls)
        new_messages = [message.with_results(results) for message in new_messages]
    await messages.append_messages(c, task.session_id, task.id, step, new_messages)


async def end_task(
    resources: Resources,
    task: Task,
    *,
    status: TaskStatus,
    error: TaskError | None = None,
    step: int = 0,
    said: Sequence[NewMessage] = (),
    usage: Usage = Usage(),
    checkpoint: StreamId | None = None,
    answer_end: AnswerEnd | None = None,
    result: ToolResultPart | None = None,
) -> EndedTask:
    """Ends the claimed `task`. `said` are the messages of its last `step`, `checkpoint` is their last stream entry.
    `result` is that of the approved call which the task has run, if it is not stored yet.

    One transaction stores the end and the messages, and makes the session's next waiting task active. If the task
    closed the last question of a turn, the one that continues the conversation is among those that wait. If a cancel
    was requested, the status becomes `cancelled` whatever `status` is. A cancelled task takes in the messages that wait
    for it: they stay visible, and no turn begins with them. Raises Fenced if the claim is no longer valid.
    """
    async with resources.database.transaction() as c:
        if said:  # locks the session's row
            await append_new_messages(c, task, step, said)
        else:
            await sessions.lock_session(c, task.session_id)
        if result is not None:
            await store_result(c, task, result)
        finished = await tasks.finish_task(
            c, task, status=status, error=error, usage=usage, checkpoint=checkpoint, answer_end=answer_end
        )
        ended = finished.task
        if ended.status is not TaskStatus.COMPLETED:
            await _give_up_calls(c, ended)
        taken: list[Message] = []
        if ended.status is TaskStatus.CANCELLED and finished.others_wait:
            taken = await take_in(c, task, max(step, ended.steps) + 1)
        others_wait = await continue_after_last(c, ended) or finished.others_wait
        following = await tasks.activate_next(c, task.session_id) if others_wait else None
        if following is not None:
            await store_user_message(c, following)
    _announce_end(resources, ended)
    if following is None:
        return EndedTask(ended, None, taken)
    announce_start(resources, following.session_id, following.user_id, following.id)
    return EndedTask(ended, Turn(following.id, following.session_id), taken)


async def announce_stored_end(resources: Resources, ended: Task) -> EndedTask:
    """Publishes the hints of an end that is stored, but whose commit got no reply. Returns it as `end_task` does."""
    _announce_end(resources, ended)
    async with resources.database.connection() as c:
        following = await tasks.find_active_task(c, ended.session_id)
        taken = await newly_taken_in_by(c, ended)
    if following is None or following.status is not TaskStatus.QUEUED or following.owner is not None:
        return EndedTask(ended, None, taken)
    announce_start(resources, following.session_id, following.user_id, following.id)
    return EndedTask(ended, Turn(following.id, following.session_id), taken)


async def end_unowned(resources: Resources, task: Task, status: TaskStatus, error: TaskError | None = None) -> bool:
    """Ends a task that no executor owns. Claims it first, so that the end of its stream has its own fence.

    Returns False if the task has an owner or no longer exists. If this process dies after the claim, the sweeper
    releases it, because the claim's owner has no heartbeat.
    """
    with resources.claiming.noted(task.id):
        return await _end_unowned(resources, task, status, error)


async def _end_unowned(resources: Resources, task: Task, status: TaskStatus, error: TaskError | None) -> bool:
    async with resources.database.connection() as c:
        claimed = await tasks.claim_task(
            c, task.id, resources.me, seen_owner=None, seen_attempt=task.attempt, only_active=False
        )
    if claimed is None:
        return False
    try:
        ending = await end_task(resources, claimed, status=status, error=error)
    except Fenced:  # deleted with its session, or taken over: this process may have no heartbeat
        return False
    if ending.next_turn is not None:
        await resources.outbox.publish(ending.next_turn)
    with contextlib.suppress(AttemptEnded, Unavailable):  # without the stream, readers end by the row
        if task.attempt:
            chunks = terminal_chunks(ending.task, step_open=False, taken=ending.taken)
            await ensure_terminal(resources.streams, resources.flusher, ending.task, chunks)
        else:
            await write_whole_end(resources.flusher, ending.task, ending.taken)
    return True


async def store_result(c: Connection, task: Task, result: ToolResultPart) -> None:
    """Stores the result of an approved call, whose continuation the caller has claimed: with the operation, and in the
    message of the turn that made the call. Raises Fenced if the claim is lost. The caller holds the session's lock.
    """
    operation = await operations.store_result(c, task, result.output)
    await messages.give_result(c, operation.work.turn, result)


async def _give_up_calls(c: Connection, ended: Task) -> None:
    """Ends the open questions of a task that was not completed, and its operations that no service has accepted.

    The call of an operation that ended without an outcome gets the result `cancelled`.
    """
    if ended.attempt:
        await questions.withdraw_questions(c, ended.session_id, ended.id)
        await operations.drop_unopened(c, ended.session_id, ended.id)
    if ended.kind is not TaskKind.OPERATION:
        return
    operation = await operations.give_up_operation(c, ended.id, operations.CANCELLED)
    if operation is not None and (result := operation.outcome) is not None:
        await messages.give_result(c, operation.work.turn, result)


def _announce_end(resources: Resources, ended: Task) -> None:
    """Publishes the end of a turn, or of an operation that was cancelled before its continuation began.

    No page shows the turn of a temporary session.
    """
    if ended.request.temporary:
        return
    pending = not ended.is_turn
    resources.feed.publish(
        Hint.OPERATION_FINISHED if pending else Hint.TURN_FINISHED,
        ended.session_id,
        ended.user_id,
        task_id=ended.id,
        status=ended.status.value,
        **({"operation_id": ended.operation_id, "tool_name": ended.tool_name} if pending else {}),
    )
