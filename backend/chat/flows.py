"""The sentences that need several stores: start_turn, end_task. Others: `cancelling.py`, `completing.py`.

Every transaction that touches a session's tasks locks the session's row first, so two of them never wait for each
other in a circle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

from redis.asyncio import Redis

from backend.chat import messages, operations, revisions, sessions, tasks
from backend.chat.feed import Feed, Hint
from backend.chat.following import Hub
from backend.chat.liveness import Liveness
from backend.chat.locks import Locks
from backend.chat.models import (
    Caller,
    Ending,
    NewMessage,
    NotePart,
    OnBusy,
    Part,
    Role,
    Task,
    TaskError,
    TaskKind,
    TaskStatus,
    TextPart,
    ToolResultPart,
    Turn,
    TurnRequest,
    Usage,
)
from backend.chat.outbox import Outbox
from backend.chat.streams import Streams
from backend.chat.turns import TurnQueue
from backend.chat.writing import Flusher
from backend.config import Settings
from backend.errors import (
    QueueFull,
    RateLimited,
    TurnInProgress,
    Unavailable,
)
from backend.failpoints import reach
from backend.ids import ExecutorId, SessionId, StreamId, TaskId, UserId, new_task_id
from backend.postgres import Connection, Database


class House(Protocol):
    """What a flow needs of `backend.resources.Resources`."""

    @property
    def settings(self) -> Settings: ...
    @property
    def me(self) -> ExecutorId: ...
    @property
    def database(self) -> Database: ...
    @property
    def redis(self) -> Redis: ...
    @property
    def liveness(self) -> Liveness: ...
    @property
    def streams(self) -> Streams: ...
    @property
    def flusher(self) -> Flusher: ...
    @property
    def hub(self) -> Hub: ...
    @property
    def feed(self) -> Feed: ...
    @property
    def turns(self) -> TurnQueue: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def locks(self) -> Locks: ...


async def start_turn(
    house: House,
    caller: Caller,
    session_id: SessionId,
    request: TurnRequest,
    *,
    message_key: str | None,
    on_busy: OnBusy = OnBusy.QUEUE,
    create_session: bool = False,
) -> tuple[Task, bool]:
    """Accepts a message in one transaction: afterwards it is never lost. Returns the task, and whether it is new.

    The caller publishes the turn if the task is new and active; the sweeper does when nobody else did. Raises
    SessionNotFound, TurnInProgress (with `task_id`), RateLimited, QueueFull, IdempotencyKeyReused, Unavailable.
    """
    async with house.database.transaction() as c:
        is_new = create_session and (await sessions.create_session(c, session_id, caller.user_id, {}))[1]
        running = None
        if not is_new:
            await sessions.get_session(c, session_id, caller, lock=True)
            known, request, message_key = await revisions.recall(c, session_id, request, message_key)
            if known is not None:
                return known, False
            running = await tasks.find_active_task(c, session_id)
            if running is not None and on_busy is OnBusy.REJECT:
                raise TurnInProgress(task_id=running.id)
        await _check_limits(c, house.settings, caller, will_wait=running is not None)
        task = await tasks.insert_task(
            c,
            task_id=new_task_id(),
            session_id=session_id,
            caller=caller,
            request=request,
            message_key=message_key,
            active=running is None,
            priority=1 + await tasks.highest_priority(c, session_id) if on_busy is OnBusy.INTERRUPT else 0,
        )
        if running is None:
            await open_turn(c, task)
        else:
            await sessions.touch_session(c, session_id)
        if running is not None and on_busy is OnBusy.INTERRUPT:
            await tasks.request_cancel(c, running.id)
    reach("after_pg_commit_before_202")
    if running is None:
        announce_start(house, session_id, task.user_id, task.id)
    if running is not None and on_busy is OnBusy.INTERRUPT:
        await tell_executors(house, running.id)
    return task, True


async def _check_limits(c: Connection, settings: Settings, caller: Caller, *, will_wait: bool) -> None:
    active, waiting = await tasks.count_turns(c, caller.quota_key)
    if will_wait and waiting >= settings.max_waiting_turns:
        raise QueueFull
    if not will_wait and active >= settings.max_running_turns:
        raise RateLimited


def announce_start(house: House, session_id: SessionId, user_id: UserId | None, task_id: TaskId) -> None:
    """A task is its session's active one now: pages may attach to its stream."""
    house.feed.tell(Hint.TURN_STARTED, session_id, user_id, task_id=task_id)


async def open_turn(c: Connection, task: Task) -> None:
    """What becomes of the session when a task becomes its active one: hidden rows, and the message that it answers."""
    request = task.request
    if (place := await revisions.superseded_from(c, task)) is not None:
        await messages.supersede_from(c, task.session_id, place, task.id)
    parts: list[Part] = [request.context] if request.context is not None else []
    if request.text is not None:
        parts.append(_asked(task, request.text))
        user_message = NewMessage(Role.USER, tuple(parts))
        await messages.append_messages(c, task.session_id, task.id, 0, [user_message], message_id=request.message_id)


def _asked(task: Task, text: str) -> Part:
    """What a service says, or the server itself, is read by the model and not shown: no words of the user's."""
    return TextPart(text) if task.request.is_user_message else NotePart(text)


async def append_said(c: Connection, task: Task, step: int, said: Sequence[NewMessage]) -> None:
    """Writes the messages of one commit, and locks the session. A call is not pending, nor cut short, when its
    operation has a result: the outcome may come before the tool message of the turn that began it."""
    open_calls = [p.tool_call_id for m in said for p in m.parts if isinstance(p, ToolResultPart) and p.awaits_result]
    if open_calls:
        await sessions.lock_session(c, task.session_id)
        results = await operations.results_of(c, task.session_id, open_calls)
        said = [message.with_results(results) for message in said]
    await messages.append_messages(c, task.session_id, task.id, step, said)


async def end_task(
    house: House,
    task: Task,
    *,
    status: TaskStatus,
    error: TaskError | None = None,
    step: int = 0,
    said: Sequence[NewMessage] = (),
    usage: Usage = Usage(),
    checkpoint: StreamId | None = None,
) -> Ending:
    """The one place where a task ends. `task` is the claim that ends it; `said` are the messages of its last `step`,
    `checkpoint` is the entry with which they end in the stream.

    One transaction: the end, what was said, and the session's next waiting task becomes active. The status is
    `cancelled` when a cancel was wished, whatever is asked for. Raises Fenced when the claim no longer stands.
    """
    async with house.database.transaction() as c:
        if said:  # locks the session's row
            await append_said(c, task, step, said)
        else:
            await sessions.lock_session(c, task.session_id)
        ended, others_wait = await tasks.finish_task(
            c, task, status=status, error=error, usage=usage, checkpoint=checkpoint
        )
        if ended.kind is TaskKind.OPERATION and ended.status is not TaskStatus.COMPLETED:
            await _give_up_call(c, ended)
        elif ended.status is not TaskStatus.COMPLETED and ended.attempt:
            await operations.drop_unopened(c, ended.session_id, ended.id)
        following = await tasks.activate_next(c, task.session_id) if others_wait else None
        if following is not None:
            await open_turn(c, following)
    _announce_end(house, ended)
    if following is None:
        return Ending(ended, None)
    announce_start(house, following.session_id, following.user_id, following.id)
    return Ending(ended, Turn(following.id, following.session_id))


async def _give_up_call(c: Connection, ended: Task) -> None:
    """The call of an operation that ended without an outcome is not pending any more."""
    operation = await operations.give_up_operation(c, ended.id, operations.CANCELLED)
    if operation is not None and (result := operation.outcome) is not None:
        await messages.give_result(c, operation.work.turn, result)


def _announce_end(house: House, ended: Task) -> None:
    """An operation that ends before it was a turn again was cancelled."""
    outside = not ended.is_turn
    house.feed.tell(
        Hint.OPERATION_FINISHED if outside else Hint.TURN_FINISHED,
        ended.session_id,
        ended.user_id,
        task_id=ended.id,
        status=ended.status.value,
        **({"operation_id": ended.operation_id, "tool_name": ended.tool_name} if outside else {}),
    )


async def tell_executors(house: House, task_id: TaskId) -> None:
    """Whoever runs the task hears at once that a cancel is wished."""
    with contextlib.suppress(Unavailable):  # executors also look for wishes once a second
        await house.turns.wish_cancel(task_id)
