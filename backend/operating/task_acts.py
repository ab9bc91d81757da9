"""`python -m backend tasks`: looks at tasks of all users, cancels them, and publishes turns again."""

from __future__ import annotations

from redis.exceptions import RedisError

from backend.chat.flows.cancel import cancel_task
from backend.chat.leases.liveness import heartbeat_key
from backend.chat.models import TaskStatus, Turn
from backend.chat.resources import Resources
from backend.chat.store import executors, tasks
from backend.chat.store.operators.task_view import TaskView, find_task_view
from backend.errors import ConfigError, TaskNotFound
from backend.ids import ExecutorId, TaskId


class ActRefused(ConfigError):
    """The act is not possible, or makes no sense, in the state of its object. The message says why, and what to do."""


async def view_of(resources: Resources, task_id: TaskId) -> TaskView:
    """Returns a task. Raises ActRefused if there is none."""
    async with resources.database.connection() as c:
        view = await find_task_view(c, task_id)
    if view is None:
        raise ActRefused(f"there is no task {task_id}")
    return view


async def cancel(resources: Resources, task_id: TaskId) -> str:
    """Cancels a task, as its user could. Returns what happened. Raises ActRefused if it has ended."""
    try:
        async with resources.database.connection() as c:
            task = await tasks.get_task(c, task_id)
    except TaskNotFound:
        raise ActRefused(f"there is no task {task_id}") from None
    cancelled = await cancel_task(resources, task)
    if not cancelled.cancelled:
        raise ActRefused(f"task {task_id} has ended: {task.status.value}")
    if cancelled.reason is not None:
        return f"requested the cancellation of {task_id}; its executor has not confirmed it yet"
    return f"cancelled {task_id}"


async def requeue(resources: Resources, task_id: TaskId) -> str:
    """Publishes the turn of an active task again. Before that, takes the task from a dead owner.

    A turn that is on the queue twice runs once. Returns what happened. Raises ActRefused if the task does not wait for
    an executor and has no dead owner, or if the queue does not take the turn.
    """
    try:
        async with resources.database.connection() as c:
            task = await tasks.get_task(c, task_id)
    except TaskNotFound:
        raise ActRefused(f"there is no task {task_id}") from None
    if task.status.ended:
        raise ActRefused(f"task {task_id} has ended: {task.status.value}; its user can ask again")
    if not task.active:
        pending = task.status is TaskStatus.RUNNING
        waits = "an outcome of another service" if pending else "another turn of its session"
        raise ActRefused(f"task {task_id} waits for {waits}, and not for an executor")
    if task.owner is not None:
        if not await seems_dead(resources, task.owner):
            raise ActRefused(f"task {task_id} runs at executor {task.owner}, which is alive; cancel it instead")
        async with resources.database.connection() as c:
            await tasks.release_claim(c, task.id, task.owner, crashed=True, in_hand=False)
    if not await resources.outbox.try_publish(Turn(task.id, task.session_id)):
        raise ActRefused("the queue does not take the turn now; the sweeper publishes it when the queue is back")
    return f"published the turn of {task_id} again"


async def seems_dead(resources: Resources, owner: ExecutorId) -> bool:
    """Returns True if an executor has no heartbeat in Redis, and none in Postgres for DEAD_AFTER seconds.

    Executors judge each other faster; this process has no heartbeat of its own by which it could tell an outage.
    """
    async with resources.database.connection() as c:
        seen = await executors.last_seen(c, owner)
    if seen is not None and seen <= executors.DEAD_AFTER:
        return False
    try:
        return not await resources.redis.exists(heartbeat_key(resources.redis, owner))
    except RedisError:
        return True
