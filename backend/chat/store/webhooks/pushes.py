"""URLs that agents (A2A) name for the end of one task. Each is an endpoint with one event, sent as all others are."""

from __future__ import annotations

from dataclasses import dataclass

from backend.chat.models import Caller, Task
from backend.chat.store import sessions, tasks
from backend.chat.store.webhooks.deliveries import Event, lock_of_endpoints
from backend.errors import PushNotFound, TooManyWebhooks
from backend.ids import TaskId, UserId, new_webhook_id
from backend.postgres import Connection, Row

MOST_OF_USER = 200
"""Pushes of one user. When there is no room, those that are over are deleted."""
MOST_OF_TASK = 10
_COLUMNS = "id, task_id, push_id, url, token, credentials"
_LOCKS = 7_273_017
"""The class of the advisory locks that `set_push` takes, one for each user."""


@dataclass(frozen=True, slots=True)
class Push:
    """A push of a task. `token` and `credentials` are sent as headers; None if the agent gave none."""

    task_id: TaskId
    id: str
    url: str
    token: str | None = None
    credentials: str | None = None


def _parse(row: Row) -> Push:
    return Push(TaskId(row["task_id"]), row["push_id"], row["url"], row["token"], row["credentials"])


_LOCK = "SELECT pg_advisory_xact_lock($1, hashtext($2))"
_COUNT = """
SELECT count(*) AS of_user, count(*) FILTER (WHERE task_id = $2) AS of_task FROM webhook_endpoints
WHERE user_id = $1 AND task_id IS NOT NULL AND (task_id, push_id) <> ($2, $3)"""
_OVER = """
SELECT e.id FROM webhook_endpoints e JOIN tasks t ON t.id = e.task_id
WHERE e.user_id = $1 AND t.finished_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.endpoint_id = e.id AND d.due_at IS NOT NULL)
ORDER BY e.id FOR UPDATE OF e"""
_DELETE = "DELETE FROM webhook_endpoints WHERE id = ANY($1::text[])"
_SET = """
INSERT INTO webhook_endpoints (id, user_id, url, events, with_text, secret, task_id, push_id, token, credentials)
VALUES ($1, $2, $3, '{}', true, '', $4, $5, $6, $7)
ON CONFLICT (task_id, push_id) DO UPDATE SET url = excluded.url, token = excluded.token,
  credentials = excluded.credentials RETURNING id"""
_TELL = f"""
INSERT INTO webhook_deliveries (id, endpoint_id, task_id, event, status, due_at)
SELECT 'evt_' || replace(gen_random_uuid()::text, '-', ''), $1, $2, '{Event.TURN_FINISHED}', $3, now()
WHERE NOT EXISTS (SELECT FROM webhook_deliveries WHERE endpoint_id = $1)"""


async def set_push(c: Connection, user_id: UserId, task: Task, push: Push) -> None:
    """Adds a push of the user's task, or changes the one with this id. Requires a transaction.

    If the task has ended meanwhile, the push is due at once. Raises TooManyWebhooks, TaskNotFound.
    """
    # Whoever ends a task holds its session's lock, so the end either finds the push or is seen here.
    await sessions.lock_session(c, task.session_id)
    task = await tasks.get_task(c, task.id)
    await c.execute(_LOCK, _LOCKS, user_id)
    await _make_room(c, user_id, push)
    key = (push.url, push.task_id, push.id, push.token, push.credentials)
    endpoint_id = await c.fetchval(_SET, new_webhook_id(), user_id, *key)
    if task.status.ended:
        await c.execute(_TELL, endpoint_id, task.id, task.status.value)


async def _make_room(c: Connection, user_id: UserId, push: Push) -> None:
    row = await c.fetchrow(_COUNT, user_id, push.task_id, push.id)
    assert row is not None
    if row["of_task"] >= MOST_OF_TASK:
        raise TooManyWebhooks(f"This task has {MOST_OF_TASK} push notification configs, which is the limit.")
    if row["of_user"] >= MOST_OF_USER:
        over = [found["id"] for found in await c.fetch(_OVER, user_id)]
        if not over:
            raise TooManyWebhooks(f"You have {MOST_OF_USER} push notification configs, which is the limit.")
        await lock_of_endpoints(c, over)
        await c.execute(_DELETE, over)


_OF_TASK = f"SELECT {_COLUMNS} FROM webhook_endpoints WHERE user_id = $1 AND task_id = $2 ORDER BY created_at, push_id"
_ONE = f"SELECT {_COLUMNS} FROM webhook_endpoints WHERE user_id = $1 AND task_id = $2 AND push_id = $3"


async def pushes_of(c: Connection, caller: Caller, task_id: TaskId) -> list[Push]:
    """Returns the caller's pushes of a task, the oldest first."""
    return [_parse(row) for row in await c.fetch(_OF_TASK, caller.user_id, task_id)]


async def get_push(c: Connection, caller: Caller, task_id: TaskId, push_id: str) -> Push:
    """Raises PushNotFound."""
    row = await c.fetchrow(_ONE, caller.user_id, task_id, push_id)
    if row is None:
        raise PushNotFound
    return _parse(row)


async def delete_push(c: Connection, caller: Caller, task_id: TaskId, push_id: str) -> None:
    """Deletes a push with what waits for it. Does nothing if there is none. Requires a transaction."""
    row = await c.fetchrow(f"{_ONE} FOR UPDATE", caller.user_id, task_id, push_id)
    if row is not None:
        await lock_of_endpoints(c, [row["id"]])
        await c.execute(_DELETE, [row["id"]])
