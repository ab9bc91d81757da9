"""Accepts a message, and prepares the session for the task that becomes active.

Every transaction that changes a session's tasks locks the session's row first, so that two of them never deadlock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from backend.chat.flows import placing
from backend.chat.flows.steering import steer_if_possible, steered_task_of
from backend.chat.flows.user_parts import user_parts
from backend.chat.models import (
    After,
    Caller,
    ModelChoice,
    NewMessage,
    OnBusy,
    Role,
    Task,
    TaskStatus,
    TurnRequest,
)
from backend.chat.resources import Resources
from backend.chat.store import branches, messages, questions, revisions, sessions, tasks
from backend.chat.store.attachments import files
from backend.chat.streams.event_feed import Hint
from backend.config import Settings
from backend.errors import FileInOtherSession, QueueFull, RateLimited, TurnInProgress, UnknownEffort, UnknownModel
from backend.failpoints import reach
from backend.ids import FileId, SessionId, TaskId, UserId, new_task_id
from backend.model_list import ModelList
from backend.postgres import Connection
from backend.tracing import Attributes


@dataclass(frozen=True, slots=True)
class Started:
    """The task that answers a message. `is_new` is false if the task existed before this request.

    `steers` is the running task that takes the message in, or has done so; then `task` only waits for that, or has
    ended. None if the message is a turn of its own.
    """

    task: Task
    is_new: bool
    steers: TaskId | None = None

    @property
    def unclaimed(self) -> bool:
        """Returns True if the turn may run and no executor has taken it, so that the queue must have it."""
        return self.task.active and self.task.status is TaskStatus.QUEUED and self.task.owner is None


async def start_turn(
    resources: Resources,
    caller: Caller,
    session_id: SessionId,
    request: TurnRequest,
    *,
    message_key: str | None,
    on_busy: OnBusy = OnBusy.QUEUE,
    create_session: bool = False,
    lives: float | None = None,
    history: Sequence[NewMessage] = (),
    on_create: Callable[[], None] = lambda: None,
    after: After | None = None,
) -> Started:
    """Accepts a message durably, in one transaction. `after` tells where the client shows the message, if the request
    says so. With `lives`, a session that is created is temporary: it is in no list, and is deleted after
    `lives` seconds. It begins with `history`, the messages that a client has kept itself.

    `on_create` is called if a session is created, and may refuse that by an error.

    The caller publishes the turn if it is `unclaimed`; the sweeper publishes it if the caller does not. Raises
    SessionNotFound, MessageNotFound (the parent that `after` names), UnknownModel, UnknownEffort, TurnInProgress (with
    `task_id`), MessageTakenIn, FileNotFound, FileInOtherSession, RateLimited, QueueFull, TooManySteers,
    IdempotencyKeyReused, Unavailable.
    """
    interrupts, began = on_busy is OnBusy.INTERRUPT, time.monotonic()
    async with resources.database.transaction() as c:
        if create_session and await _create_session(c, caller, session_id, lives, history):
            request = replace(request, choice=chosen_model(resources.settings.models, ModelChoice(), request.choice))
            await _take_files(c, caller, session_id, request)
            placed = _Placed(request, message_key, running=None, before=ModelChoice())
            on_create()
        else:
            found = await _place(c, resources, caller, session_id, request, message_key, on_busy, after)
            if isinstance(found, Task):
                return _known(resources, found, await steered_task_of(c, found))
            placed = found
        await _check_limits(c, resources.settings, caller, will_wait=placed.running is not None)
        if caller.claims:
            placed = replace(placed, request=replace(placed.request, claims=caller.claims))
        task = await _insert(c, caller, session_id, placed, interrupts=interrupts)
    reach("after_pg_commit_before_202")
    running = placed.running
    if resources.traces is not None:
        about: Attributes = {
            "gen_ai.conversation.id": session_id,
            "copilot.task_id": task.id,
            "copilot.waits": running is not None,
        }
        resources.traces.accepted(task.id, time.monotonic() - began, about)
    if running is None and not request.temporary:
        announce_start(resources, session_id, task.user_id, task.id)
    elif running is not None and interrupts:
        await resources.turn_queue.publish_cancel(running.id)
    return Started(task, is_new=True, steers=task.request.steers)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A request with its place and model. `running` is the task that it waits for, `before` its session's choice."""

    request: TurnRequest
    message_key: str | None
    running: Task | None
    before: ModelChoice


async def _place(
    c: Connection,
    resources: Resources,
    caller: Caller,
    session_id: SessionId,
    request: TurnRequest,
    message_key: str | None,
    on_busy: OnBusy,
    after: After | None,
) -> _Placed | Task:
    """Locks a session that exists, and places a request in it. Returns the task that the same request made before."""
    before = (await sessions.get_session(c, session_id, caller, lock=True)).choice
    request = replace(request, choice=chosen_model(resources.settings.models, before, request.choice))
    missing = await _unattached(c, caller, session_id, request)
    known, request, message_key = await revisions.find_earlier_request(c, session_id, request, message_key)
    if known is not None:
        return known
    if missing:
        await _refuse(c, caller, missing)
    running = await tasks.find_active_task(c, session_id)
    if running is not None and on_busy is OnBusy.REJECT:
        raise TurnInProgress(task_id=running.id)
    request = await placing.with_parent(c, session_id, request, after, running, ahead=on_busy is OnBusy.INTERRUPT)
    if running is not None and on_busy is OnBusy.STEER:
        request = await steer_if_possible(c, request, running, most=resources.settings.max_waiting_steers)
    return _Placed(request, message_key, running, before)


async def _take_files(c: Connection, caller: Caller, session_id: SessionId, request: TurnRequest) -> None:
    """Gives the files of a message to its session. Raises FileNotFound, FileInOtherSession."""
    if missing := await _unattached(c, caller, session_id, request):
        await _refuse(c, caller, missing)


async def _unattached(c: Connection, caller: Caller, session_id: SessionId, request: TurnRequest) -> list[FileId]:
    """Gives the files of a message to its session. Returns those that it cannot have."""
    wanted = [file.file_id for file in request.files]
    if not wanted:
        return []
    taken = await files.attach_files(c, caller, session_id, wanted)
    return [id for id in wanted if id not in taken]


async def _refuse(c: Connection, caller: Caller, missing: Sequence[FileId]) -> NoReturn:
    await files.get_files(c, caller, missing)  # raises FileNotFound
    raise FileInOtherSession


async def _insert(c: Connection, caller: Caller, session_id: SessionId, placed: _Placed, *, interrupts: bool) -> Task:
    if placed.request.choice != placed.before:
        await sessions.set_choice(c, session_id, placed.request.choice)
    task = await tasks.insert_task(
        c,
        task_id=new_task_id(),
        session_id=session_id,
        caller=caller,
        request=placed.request,
        message_key=placed.message_key,
        active=placed.running is None,
        priority=1 + await tasks.highest_priority(c, session_id) if interrupts else 0,
    )
    if placed.running is None:
        await store_user_message(c, task)
    else:
        await sessions.touch_session(c, session_id)
        if interrupts:
            await tasks.request_cancel(c, placed.running.id)
    return task


def chosen_model(models: ModelList, before: ModelChoice, wanted: ModelChoice) -> ModelChoice:
    """Returns the choice of a turn: what it names, else that of its session. A named model does not inherit the effort
    of the session's former model. Raises UnknownModel and UnknownEffort.
    """
    if wanted == ModelChoice():
        return before
    if wanted.model is not None:
        entry = models.find(wanted.model)
        if entry is None:
            raise UnknownModel(models=[entry.id for entry in models.shown])
    else:
        wanted = replace(wanted, model=before.model)
        entry = models.find(before.model) or models.default
    if not entry.knows(wanted.effort):
        raise UnknownEffort(model=entry.id, efforts=list(entry.efforts))
    return wanted


async def _create_session(
    c: Connection, caller: Caller, session_id: SessionId, lives: float | None, history: Sequence[NewMessage]
) -> bool:
    """Creates the session with its history. Returns False if it exists, whoever owns it."""
    if await sessions.insert_session(c, session_id, caller.user_id, {}, lives=lives) is None:
        return False
    if history:
        imported = await tasks.insert_ended_task(c, new_task_id(), session_id, caller)
        await messages.append_messages(c, session_id, imported, 0, history)
    return True


def _known(resources: Resources, task: Task, steers: TaskId | None) -> Started:
    """Returns a task that an earlier request made, perhaps one that lost the reply to its commit and told nobody."""
    started = Started(task, is_new=False, steers=steers)
    if started.unclaimed and not task.request.temporary:
        announce_start(resources, task.session_id, task.user_id, task.id)
    return started


async def _check_limits(c: Connection, settings: Settings, caller: Caller, *, will_wait: bool) -> None:
    active, waiting = await tasks.count_turns(c, caller.quota_key)
    if will_wait and waiting >= settings.max_waiting_turns:
        raise QueueFull
    if not will_wait and active >= settings.max_running_turns:
        raise RateLimited


def announce_start(resources: Resources, session_id: SessionId, user_id: UserId | None, task_id: TaskId) -> None:
    """Publishes that a task is active now, so that pages can attach to its stream."""
    resources.feed.publish(Hint.TURN_STARTED, session_id, user_id, task_id=task_id)


async def store_user_message(c: Connection, task: Task) -> None:
    """Gives a new active task its place, and stores the message that it answers, as its step 0.

    If a user asked for the turn, its branch becomes the current one.
    """
    request = task.request
    if placing.follows_the_leaf(request):
        await branches.begin_at_leaf(c, task)
    else:
        place = await placing.place_of(c, task)
        await branches.begin_at(c, task, place)
        if placing.is_asked_for(task) and await branches.make_current(c, task.session_id, place, task.id):
            await questions.withdraw_superseded_questions(c, task.session_id, task.id)
    if request.text is not None:
        said = [NewMessage(Role.USER, user_parts(task))]
        await messages.append_messages(c, task.session_id, task.id, 0, said, message_ids=[request.message_id])
