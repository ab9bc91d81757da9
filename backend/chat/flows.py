"""The sentences that need several stores: start_turn, end_task, cancel_task, delete_session.

Every transaction that touches a session's tasks locks the session's row first, so two of them never wait for each
other in a circle.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from redis.asyncio import Redis

from backend.chat import keys, messages, revisions, sessions, tasks
from backend.chat.chunks import END, Chunk, Start
from backend.chat.following import Hub
from backend.chat.liveness import Liveness
from backend.chat.locks import Locks
from backend.chat.models import (
    Caller,
    ContextPart,
    Ending,
    NewMessage,
    OnBusy,
    Part,
    Role,
    Task,
    TaskError,
    TaskStatus,
    TextPart,
    Turn,
    TurnRequest,
    Usage,
)
from backend.chat.outbox import Outbox
from backend.chat.reading import wait_for_end
from backend.chat.snapshot import terminal_chunks
from backend.chat.streams import Streams
from backend.chat.turns import TurnQueue
from backend.chat.writing import Flusher
from backend.config import Settings
from backend.errors import (
    AttemptEnded,
    Fenced,
    QueueFull,
    RateLimited,
    StreamCut,
    TurnInProgress,
    Unavailable,
)
from backend.failpoints import reach
from backend.ids import ExecutorId, SessionId, StreamId, TaskId, new_task_id
from backend.postgres import Connection, Database

CANCEL_WAIT = 5.0
STREAMS_WAIT = 1.0


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
    def turns(self) -> TurnQueue: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def locks(self) -> Locks: ...


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What came of a wish to cancel. `reason` says why not, or that the executor has not confirmed in time."""

    cancelled: bool
    task_id: TaskId | None = None
    reason: str | None = None


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
            await _open_turn(c, task)
        else:
            await sessions.touch_session(c, session_id)
        if running is not None and on_busy is OnBusy.INTERRUPT:
            await tasks.request_cancel(c, running.id)
    reach("after_pg_commit_before_202")
    if running is not None and on_busy is OnBusy.INTERRUPT:
        await _tell_executors(house, running.id)
    return task, True


async def _check_limits(c: Connection, settings: Settings, caller: Caller, *, will_wait: bool) -> None:
    active, waiting = await tasks.count_turns(c, caller.quota_key)
    if will_wait and waiting >= settings.max_waiting_turns:
        raise QueueFull
    if not will_wait and active >= settings.max_running_turns:
        raise RateLimited


async def _open_turn(c: Connection, task: Task) -> None:
    """What becomes of the session when a task becomes its active one: hidden rows, and the user's message."""
    request = task.request
    if (place := await revisions.superseded_from(c, task)) is not None:
        await messages.supersede_from(c, task.session_id, place, task.id)
    parts: list[Part] = [request.context] if request.context is not None else []
    if request.text is not None:
        # a note of a service is read by the model and not shown: it is context, not something the user said
        parts.append(TextPart(request.text) if request.is_user_message else ContextPart(None, request.text))
        user_message = NewMessage(Role.USER, tuple(parts))
        await messages.append_messages(c, task.session_id, task.id, 0, [user_message], message_id=request.message_id)


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
            await messages.append_messages(c, task.session_id, task.id, step, said)
        else:
            await sessions.lock_session(c, task.session_id)
        ended, others_wait = await tasks.finish_task(
            c, task, status=status, error=error, usage=usage, checkpoint=checkpoint
        )
        following = await tasks.activate_next(c, task.session_id) if others_wait else None
        if following is not None:
            await _open_turn(c, following)
    next_turn = Turn(following.id, following.session_id) if following is not None else None
    return Ending(ended, next_turn)


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
            if wished.status is not TaskStatus.QUEUED or not await end_unbegun(house, wished, TaskStatus.CANCELLED):
                await _tell_executors(house, wished.id)
                await wait_for_end(house.hub, house.streams, wished)
    except (TimeoutError, StreamCut, Unavailable):
        return False
    return True


async def end_unbegun(house: House, task: Task, status: TaskStatus, error: TaskError | None = None) -> bool:
    """Ends a task that no executor has had: claims it first, so that its stream's end has a fence of its own.

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
    with contextlib.suppress(AttemptEnded):  # readers end from the row when the stream cannot be written
        await write_whole_end(house, ending.task)
    return True


async def write_whole_end(house: House, task: Task) -> None:
    """Writes the stream of a task that ended before it began: `start`, the terminal chunks, the end."""
    writer = house.flusher.writer(keys.stream_key(task.session_id, task.id), task.fence, create=True)
    chunks: list[Chunk] = [Start(task.message_id), *terminal_chunks(task, step_open=False)]
    await writer.append(*chunks)
    await writer.control(END)
    await writer.drain()


async def _tell_executors(house: House, task_id: TaskId) -> None:
    with contextlib.suppress(Unavailable):  # executors also look for wishes once a second
        await house.turns.wish_cancel(task_id)


async def delete_session(house: House, caller: Caller, session_id: SessionId) -> None:
    """Cancels all that runs and waits in the session, waits at most 5 s for it, then deletes its rows and streams."""
    async with house.database.transaction() as c:
        await sessions.get_session(c, session_id, caller, lock=True)
        wished = await tasks.request_cancel_of_session(c, session_id)
    await asyncio.gather(*(_end_cancelled(house, task) for task in wished))
    async with house.database.transaction() as c:
        await sessions.get_session(c, session_id, caller, lock=True)
        task_ids = await sessions.delete_session(c, session_id)
    with contextlib.suppress(Unavailable, TimeoutError):  # what is left of them has a TTL
        async with asyncio.timeout(STREAMS_WAIT):
            for task_id in task_ids:
                await house.streams.delete(keys.stream_key(session_id, task_id))
