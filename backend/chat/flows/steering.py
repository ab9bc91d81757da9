"""Messages for a running turn (`on_busy=steer`), which takes them in before its next call of the model.

Such a message waits like any other: as a queued task, whose request names the running task (`TurnRequest.steers`). To
take it in means to end that task and to store its message as one of the running task, in one transaction that holds the
session's lock. So it is used once: by the turn that takes it in, or, if that has ended, as a turn of its own.
"""

from __future__ import annotations

from dataclasses import replace

from backend.chat.flows.user_parts import user_parts
from backend.chat.models import OWN_MESSAGE_ID, Message, NewMessage, Role, Task, TaskStatus, TurnRequest
from backend.chat.store import branches, messages, tasks
from backend.errors import TooManySteers
from backend.ids import TaskId
from backend.postgres import Connection


async def steer_if_possible(c: Connection, request: TurnRequest, running: Task, *, most: int) -> TurnRequest:
    """Returns the request with `steers` set to the running task, which then takes the message in at its next step.

    Returns it unchanged if the running task cannot do that: if the request edits a message, answers one again or names
    a place of its own, if the task is being cancelled, or if it answers on a branch that is not shown. The caller holds
    the session's lock. Raises TooManySteers if `most` wait.
    """
    is_new = request.text is not None and request.revises is None and not request.branches
    if not is_new or running.cancel_requested or not await branches.is_task_on_current(c, running):
        return request
    if await tasks.count_steers(c, running.id) >= most:
        raise TooManySteers
    return replace(request, steers=running.id)


async def steered_task_of(c: Connection, task: Task) -> TaskId | None:
    """Returns the task that has taken this message in, or for which it waits. None if the message is its own turn."""
    wanted = task.request.steers
    if task.taken_by is not None or wanted is None or task.active or task.status is not TaskStatus.QUEUED:
        return task.taken_by
    running = await tasks.find_active_task(c, task.session_id)
    return wanted if running is not None and running.id == wanted else None


async def take_in(c: Connection, task: Task, step: int) -> list[Message]:
    """Stores the messages that wait for this task as its messages of `step`, in the order of their acceptance.

    The caller holds the session's lock, and checks the claim in the same transaction.
    """
    taken = await tasks.take_steers(c, task)
    said = [NewMessage(Role.USER, user_parts(steer)) for steer in taken]
    ids = [steer.request.message_id or f"{OWN_MESSAGE_ID}{steer.id}" for steer in taken]
    return await messages.append_messages(c, task.session_id, task.id, step, said, message_ids=ids)


async def newly_taken_in_by(c: Connection, ended: Task) -> list[Message]:
    """Returns the messages that an ended task has taken in and whose chunks its stream may lack.

    They were stored with its end, or by its last step. If a later step follows them, the stream has shown them.
    """
    return await messages.messages_taken_since(c, ended.id, max(1, ended.steps))
