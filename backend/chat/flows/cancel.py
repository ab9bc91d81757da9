"""Cancels a task that runs, waits or is pending at another service."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from backend.chat.flows.finish import end_unowned
from backend.chat.models import Task, TaskKind, TaskStatus
from backend.chat.resources import Resources
from backend.chat.store import tasks
from backend.chat.streams.reader import wait_for_end
from backend.errors import StreamCut, Unavailable
from backend.ids import TaskId

CANCEL_WAIT = 5.0  # seconds that a caller waits for the task to end


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The result of a cancel request. `reason` is set if nothing was cancelled, or if the end was not seen in time."""

    cancelled: bool
    task_id: TaskId | None = None
    reason: str | None = None


async def cancel_task(resources: Resources, task: Task) -> Cancelled:
    """Cancels a running, waiting or pending task.

    Records the request in Postgres first, where it wins over any other end. Then waits up to CANCEL_WAIT for the end.
    """
    async with resources.database.connection() as c:
        cancelling = await tasks.request_cancel(c, task.id)
    if cancelling is None:
        return Cancelled(False, None, "no_active_task")
    confirmed = await end_cancelled(resources, cancelling, within=CANCEL_WAIT)
    return Cancelled(True, task.id, None if confirmed else "cancel_published_not_confirmed")


async def end_cancelled(resources: Resources, task: Task, *, within: float) -> bool:
    """Ends a task whose cancel was requested. Returns False if it did not end `within` these seconds."""
    try:
        async with asyncio.timeout(within):
            unowned = task.owner is None and (task.status is TaskStatus.QUEUED or task.kind is TaskKind.OPERATION)
            if not unowned or not await end_unowned(resources, task, TaskStatus.CANCELLED):
                await resources.turn_queue.publish_cancel(task.id)
                await wait_for_end(resources.hub, resources.streams, task)
    except (TimeoutError, StreamCut, Unavailable):
        return False
    return True
