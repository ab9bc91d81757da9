"""The URLs to which a user has events sent, each with its secret. Those for one task are `pushes.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from backend.chat.store.webhooks.deliveries import Event, give_up_waiting, lock_of_endpoints
from backend.chat.store.webhooks.pauses import end_pause
from backend.errors import TooManyWebhooks, WebhookNotFound
from backend.ids import UserId, new_webhook_id
from backend.postgres import Connection, Row

BOTH_SECRETS_FOR = 86_400
"""Seconds after a rotation in which the previous secret signs as well."""
_LOCKS = 7_273_005
"""The class of the advisory locks that `add_endpoint` takes, one for each user."""
_COLUMNS = (
    "id, url, events, with_text, previous_until, disabled_at, disabled_by, failing_since, paused_until, created_at"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of a user, without its secrets."""

    id: str
    url: str
    events: Sequence[str]
    with_text: bool
    previous_until: datetime | None
    disabled_at: datetime | None
    disabled_by: str | None
    failing_since: datetime | None
    paused_until: datetime | None
    created_at: datetime

    @property
    def enabled(self) -> bool:
        return self.disabled_at is None


def _parse(row: Row) -> Endpoint:
    return Endpoint(**row)


def _found(row: Row | None) -> Endpoint:
    if row is None:
        raise WebhookNotFound
    return _parse(row)


_LOCK = "SELECT pg_advisory_xact_lock($1, hashtext($2))"
_INSERT = f"""
INSERT INTO webhook_endpoints (id, user_id, url, events, with_text, secret)
SELECT $1, $2, $3, $4, $5, $6
WHERE (SELECT count(*) FROM webhook_endpoints WHERE user_id = $2 AND task_id IS NULL) < $7
RETURNING {_COLUMNS}"""


async def add_endpoint(
    c: Connection, user_id: UserId, url: str, events: Sequence[Event], *, with_text: bool, secret: str, most: int
) -> Endpoint:
    """Adds an endpoint. Raises TooManyWebhooks if the user has `most` already. Requires a transaction."""
    await c.execute(_LOCK, _LOCKS, user_id)
    names = [event.value for event in events]
    row = await c.fetchrow(_INSERT, new_webhook_id(), user_id, url, names, with_text, secret, most)
    if row is None:
        raise TooManyWebhooks(f"You have {most} webhooks, which is the limit. Delete one first.")
    return _parse(row)


_LIST = f"SELECT {_COLUMNS} FROM webhook_endpoints WHERE user_id = $1 AND task_id IS NULL ORDER BY created_at, id"


async def list_endpoints(c: Connection, user_id: UserId) -> list[Endpoint]:
    return [_parse(row) for row in await c.fetch(_LIST, user_id)]


# An endpoint that is enabled again begins as if it had never failed.
_CHANGE = f"""
UPDATE webhook_endpoints SET events = coalesce($3, events), with_text = coalesce($4, with_text),
  disabled_at = CASE $5::bool WHEN true THEN NULL WHEN false THEN coalesce(disabled_at, now()) ELSE disabled_at END,
  disabled_by = CASE $5 WHEN true THEN NULL WHEN false THEN coalesce(disabled_by, 'user') ELSE disabled_by END,
  failing_since = CASE WHEN $5 THEN NULL ELSE failing_since END
WHERE id = $1 AND user_id = $2 AND task_id IS NULL RETURNING {_COLUMNS}"""


async def change_endpoint(
    c: Connection,
    user_id: UserId,
    endpoint_id: str,
    *,
    events: Sequence[Event] | None,
    with_text: bool | None,
    enabled: bool | None,
) -> Endpoint:
    """Changes what is not None. Gives up what waits for an endpoint that is disabled. Raises WebhookNotFound.

    Requires a transaction.
    """
    names = None if events is None else [event.value for event in events]
    endpoint = _found(await c.fetchrow(_CHANGE, endpoint_id, user_id, names, with_text, enabled))
    if enabled is False:
        await give_up_waiting(c, endpoint_id)
    if enabled is True and endpoint.paused_until is not None:
        await end_pause(c, endpoint_id)
        return replace(endpoint, paused_until=None)
    return endpoint


_ROTATE = f"""
UPDATE webhook_endpoints SET secret = $3, previous_secret = secret,
  previous_until = now() + make_interval(secs => {BOTH_SECRETS_FOR})
WHERE id = $1 AND user_id = $2 AND task_id IS NULL RETURNING {_COLUMNS}"""


async def rotate_secret(c: Connection, user_id: UserId, endpoint_id: str, secret: str) -> Endpoint:
    """Replaces the secret. The replaced one signs as well for BOTH_SECRETS_FOR seconds. Raises WebhookNotFound."""
    return _found(await c.fetchrow(_ROTATE, endpoint_id, user_id, secret))


_LOCK_ONE = "SELECT id FROM webhook_endpoints WHERE id = $1 AND user_id = $2 FOR UPDATE"
_LOCK_ALL = "SELECT id FROM webhook_endpoints WHERE user_id = $1 ORDER BY id FOR UPDATE"
_DELETE = "DELETE FROM webhook_endpoints WHERE id = ANY($1::text[])"


async def delete_endpoint(c: Connection, user_id: UserId, endpoint_id: str) -> None:
    """Deletes an endpoint with the log of its deliveries. Raises WebhookNotFound. Requires a transaction."""
    if await c.fetchval(_LOCK_ONE, endpoint_id, user_id) is None:
        raise WebhookNotFound
    await _delete(c, [endpoint_id])


async def delete_endpoints(c: Connection, user_id: UserId) -> None:
    """Deletes all endpoints of a user, with their logs. Requires a transaction."""
    await _delete(c, [row["id"] for row in await c.fetch(_LOCK_ALL, user_id)])


async def _delete(c: Connection, locked: Sequence[str]) -> None:
    await lock_of_endpoints(c, locked)
    await c.execute(_DELETE, locked)
