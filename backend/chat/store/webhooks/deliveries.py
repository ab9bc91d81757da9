"""What the endpoints of users are told: the outbox of events, which is also the log of their deliveries.

An event is written by the statement that ends its task (`event_insert`). A sender claims deliveries with a lease:
`due_at` is then the end of the lease, and proves whose the attempt is. If the sender dies, the lease lapses, and the
delivery is claimed again: each is sent at least once, always with the same id.

A transaction that changes several rows locks them in one order, so that two cannot wait for each other: endpoints
first, then deliveries, each by its id.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from backend.chat.models import TaskError, TaskKind, TaskStatus
from backend.chat.store.webhooks import pauses
from backend.chat.store.webhooks.pauses import end_pause, pause
from backend.errors import WebhookDisabled, WebhookNotFound
from backend.ids import OperationId, SessionId, TaskId, UserId
from backend.postgres import Connection, Row

MOST_WAITING = 1_000
"""Deliveries that may wait for one endpoint. A further event is not sent, but its user can have it sent later."""
SENT_FOR = 86_400
"""Seconds after which a delivery is given up."""
LEASE = 60
"""Seconds that an attempt may take before the delivery is claimed again."""
KEPT_DAYS = 7
"""Days for which the log keeps a delivery."""


logger = logging.getLogger(__name__)


class Event(StrEnum):
    """An event that endpoints may be told."""

    TURN_FINISHED = "turn.finished"
    OPERATION_FINISHED = "operation.finished"


class Failure(StrEnum):
    """Why the newest attempt failed, or none was made."""

    ADDRESS_REFUSED = "address_refused"
    NOT_RESOLVED = "not_resolved"
    NOT_CONNECTED = "not_connected"
    CERTIFICATE = "certificate"
    TIMEOUT = "timeout"
    NOT_ANSWERED = "not_answered"
    REDIRECTED = "redirected"
    REFUSED = "refused"
    GONE = "gone"
    DISABLED = "disabled"
    TOO_LATE = "too_late"
    TOO_MANY_WAITING = "too_many_waiting"


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event for one endpoint. `due_at` is None when no attempt follows; then `delivered_at` tells if it arrived.

    `event` is an Event and `error` a Failure, unless a newer version has written them.
    """

    id: str
    event: str
    session_id: SessionId
    task_id: TaskId
    status: TaskStatus
    attempts: int
    answer: int | None
    error: str | None
    due_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A claimed delivery with all that its message needs. `leased_until` proves the claim.

    `waited` are the seconds since the delivery was queued, `failing` those since the endpoint began to fail.
    `secrets` has the previous one too while that is valid. `event` is an Event, unless a newer version has written it.
    `push`: an agent named the URL for this task (`pushes.py`); there is no secret, but perhaps a `token`, and
    `credentials` for the header `authorization`, with their scheme.
    """

    id: str
    endpoint_id: str
    user_id: UserId
    leased_until: datetime
    url: str
    secrets: tuple[str, ...]
    with_text: bool
    waited: float
    failing: float
    event: str
    status: TaskStatus
    ended_at: datetime
    task_id: TaskId
    session_id: SessionId
    kind: TaskKind
    operation_id: OperationId | None
    tool_name: str | None
    task_error: TaskError | None
    created_at: datetime
    started_at: datetime | None
    push: bool = False
    token: str | None = None
    credentials: str | None = None


# --- writing ----------------------------------------------------------------------------------------------------------


def event_insert(event: str, status: str, *, ends: bool) -> str:
    """Returns the INSERT that records an event of the task `t`, which a WITH query of the same statement has changed.

    `event` and `status` are SQL expressions. The lock waits for an endpoint that is just being deleted, so that the
    foreign key holds. Temporary sessions have no events. If the task `ends`, its pushes have the event, too.
    """
    return f"""
INSERT INTO webhook_deliveries (id, endpoint_id, task_id, event, status, due_at, error)
SELECT 'evt_' || replace(gen_random_uuid()::text, '-', ''), e.id, t.id, {event}, {status},
  CASE WHEN room.is_left THEN now() END, CASE WHEN NOT room.is_left THEN '{Failure.TOO_MANY_WAITING}' END
FROM t JOIN sessions s ON s.id = t.session_id AND s.expires_at IS NULL
  JOIN webhook_endpoints e ON e.user_id = s.user_id AND e.disabled_at IS NULL
    AND ({event} = ANY(e.events) OR {"e.task_id = t.id" if ends else "false"})
  CROSS JOIN LATERAL (SELECT count(*) < {MOST_WAITING} AS is_left FROM (
    SELECT FROM webhook_deliveries w WHERE w.endpoint_id = e.id AND w.due_at IS NOT NULL LIMIT {MOST_WAITING}
  ) AS waiting) AS room
ORDER BY e.id FOR KEY SHARE OF e"""


_LOCK_OF_USER = "SELECT disabled_at FROM webhook_endpoints WHERE id = $1 AND user_id = $2 FOR NO KEY UPDATE"
_SEND_AGAIN = """
WITH d AS (
  UPDATE webhook_deliveries SET due_at = now(), queued_at = now(), delivered_at = NULL
  WHERE id = $2 AND endpoint_id = $1 RETURNING *
)
SELECT d.*, t.session_id FROM d JOIN tasks t ON t.id = d.task_id"""


async def send_again(c: Connection, user_id: UserId, endpoint_id: str, delivery_id: str) -> Delivery:
    """Makes a delivery due now, and lets it be tried for another day. Requires a transaction.

    Raises WebhookNotFound if it or its endpoint does not exist, WebhookDisabled if nothing is sent to the endpoint.
    """
    endpoint = await c.fetchrow(_LOCK_OF_USER, endpoint_id, user_id)
    if endpoint is None:
        raise WebhookNotFound
    if endpoint["disabled_at"] is not None:
        raise WebhookDisabled
    await end_pause(c, endpoint_id)
    row = await c.fetchrow(_SEND_AGAIN, endpoint_id, delivery_id)
    if row is None:
        raise WebhookNotFound
    return _parse(row)


# --- reading ----------------------------------------------------------------------------------------------------------

_EXISTS = "SELECT EXISTS (SELECT FROM webhook_endpoints WHERE id = $1 AND user_id = $2)"
_LOG = """
SELECT d.*, t.session_id FROM webhook_deliveries d JOIN tasks t ON t.id = d.task_id
WHERE d.endpoint_id = $1 ORDER BY d.created_at DESC, d.id LIMIT $2 OFFSET $3"""


async def deliveries_of(c: Connection, user_id: UserId, endpoint_id: str, *, limit: int, offset: int) -> list[Delivery]:
    """Returns the deliveries of a user's endpoint, newest first. Raises WebhookNotFound."""
    if not await c.fetchval(_EXISTS, endpoint_id, user_id):
        raise WebhookNotFound
    return [_parse(row) for row in await c.fetch(_LOG, endpoint_id, limit, offset)]


def _parse(row: Row) -> Delivery:
    return Delivery(
        id=row["id"],
        event=row["event"],
        session_id=SessionId(row["session_id"]),
        task_id=TaskId(row["task_id"]),
        status=TaskStatus(row["status"]),
        attempts=row["attempts"],
        answer=row["answer"],
        error=row["error"],
        due_at=row["due_at"],
        delivered_at=row["delivered_at"],
        created_at=row["created_at"],
    )


# --- sending ----------------------------------------------------------------------------------------------------------

_OPEN = "e.disabled_at IS NULL AND coalesce(e.paused_until <= now(), true)"
_ANY_DUE = "SELECT EXISTS (SELECT FROM webhook_deliveries WHERE due_at <= now())"


async def any_due(c: Connection) -> bool:
    """Returns True if a delivery is due. `set_aside` takes away those that cannot be sent now."""
    return bool(await c.fetchval(_ANY_DUE))


async def set_aside(c: Connection, limit: int) -> None:
    """Takes away up to `limit` due deliveries of paused and disabled endpoints, so that they are not read again."""
    await pauses.set_aside(c, limit, disabled=Failure.DISABLED)


# `room` is what the share of the user has left for an endpoint, after the endpoints whose events wait for longer.
_CLAIM = f"""
WITH due AS (
  SELECT endpoint_id, min(due_at) AS since, least(count(*), $2) AS many FROM webhook_deliveries
  WHERE due_at <= now() AND NOT endpoint_id = ANY($4::text[]) GROUP BY endpoint_id
), ready AS (
  SELECT due.endpoint_id, due.since, $3 - coalesce(sending.many, 0) + due.many
    - sum(due.many) OVER (PARTITION BY e.user_id ORDER BY due.since, e.id) AS room
  FROM due JOIN webhook_endpoints e ON e.id = due.endpoint_id AND {_OPEN}
    LEFT JOIN unnest($5::text[], $6::int[]) AS sending (user_id, many) ON sending.user_id = e.user_id
), taken AS MATERIALIZED (
  SELECT next.id FROM ready CROSS JOIN LATERAL (
    SELECT id FROM webhook_deliveries WHERE endpoint_id = ready.endpoint_id AND due_at <= now()
    ORDER BY due_at LIMIT greatest(least($2, ready.room), 0) FOR NO KEY UPDATE SKIP LOCKED) AS next
  ORDER BY ready.since LIMIT $1
), d AS (
  UPDATE webhook_deliveries SET due_at = now() + make_interval(secs => {LEASE}), attempts = attempts + 1
  WHERE id IN (SELECT id FROM taken) RETURNING *
)
SELECT d.id, d.endpoint_id, e.user_id, d.due_at, d.event, d.status, d.created_at AS ended_at, e.url, e.with_text,
  e.task_id IS NOT NULL AS push, e.token, e.credentials,
  e.secret, CASE WHEN e.previous_until > now() THEN e.previous_secret END AS previous_secret,
  extract(epoch FROM now() - d.queued_at)::float8 AS waited,
  coalesce(extract(epoch FROM now() - e.failing_since), 0)::float8 AS failing,
  t.id AS task_id, t.session_id, t.kind, t.operation_id, t.tool_name, t.error, t.created_at, t.started_at
FROM d JOIN webhook_endpoints e ON e.id = d.endpoint_id JOIN tasks t ON t.id = d.task_id"""


async def claim_due(
    c: Connection,
    *,
    limit: int,
    per_endpoint: int,
    per_user: int,
    besides: Collection[str] = (),
    sending: Mapping[UserId, int] = MappingProxyType({}),
) -> list[ClaimedDelivery]:
    """Claims up to `limit` due deliveries for LEASE seconds, at most `per_endpoint` of each endpoint.

    Leaves out the endpoints `besides`. A user has at most `per_user`, with those that the caller has claimed already
    (`sending`, by user). Does not return a delivery that only a newer version can read; its executors claim it when the
    lease has lapsed.
    """
    users, numbers = list(sending), list(sending.values())
    claimed = []
    for row in await c.fetch(_CLAIM, limit, per_endpoint, per_user, list(besides), users, numbers):
        try:
            claimed.append(_parse_claimed(row))
        except ValueError as error:
            logger.warning("webhook event cannot be read", extra={"delivery": row["id"], "error": str(error)[:200]})
    return claimed


def _parse_claimed(row: Row) -> ClaimedDelivery:
    error: dict[str, str] | None = row["error"]
    return ClaimedDelivery(
        id=row["id"],
        endpoint_id=row["endpoint_id"],
        user_id=UserId(row["user_id"]),
        leased_until=row["due_at"],
        url=row["url"],
        secrets=tuple(secret for secret in (row["secret"], row["previous_secret"]) if secret),
        with_text=row["with_text"],
        waited=row["waited"],
        failing=row["failing"],
        event=row["event"],
        status=TaskStatus(row["status"]),
        ended_at=row["ended_at"],
        task_id=TaskId(row["task_id"]),
        session_id=SessionId(row["session_id"]),
        kind=TaskKind(row["kind"]),
        operation_id=None if row["operation_id"] is None else OperationId(row["operation_id"]),
        tool_name=row["tool_name"],
        task_error=None if error is None else TaskError(error["code"], error["message"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        push=row["push"],
        token=row["token"],
        credentials=row["credentials"],
    )


# A late sender, whose claim is lost, must not act on an endpoint that was enabled, or has failed, since.
_LOCK = "SELECT FROM webhook_endpoints WHERE id = $1 FOR NO KEY UPDATE"
_IS_HELD = "SELECT EXISTS (SELECT FROM webhook_deliveries WHERE id = $1 AND due_at = $2)"


async def _lock_if_held(c: Connection, claimed: ClaimedDelivery) -> bool:
    """Locks the endpoint. Returns False if the claim is lost."""
    await c.execute(_LOCK, claimed.endpoint_id)
    return bool(await c.fetchval(_IS_HELD, claimed.id, claimed.leased_until))


_WORKS = "UPDATE webhook_endpoints SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL RETURNING true"
_DELIVERED = """
UPDATE webhook_deliveries SET due_at = NULL, delivered_at = now(), answer = $3, error = NULL
WHERE id = $1 AND due_at = $2"""


async def settle_delivered(c: Connection, claimed: ClaimedDelivery, answer: int) -> None:
    """Records that the endpoint took the event, unless the claim is lost. Requires a transaction."""
    if not await _lock_if_held(c, claimed):
        return
    if await c.fetchval(_WORKS, claimed.endpoint_id):
        await end_pause(c, claimed.endpoint_id)
    await c.execute(_DELIVERED, claimed.id, claimed.leased_until, answer)


_FAILED = """
UPDATE webhook_deliveries SET due_at = now() + make_interval(secs => $3), answer = $4, error = $5
WHERE id = $1 AND due_at = $2"""
_GIVE_UP_OLD = f"""
WITH held AS MATERIALIZED (
  SELECT id FROM webhook_deliveries
  WHERE endpoint_id = $1 AND due_at <= now() AND queued_at <= now() - make_interval(secs => {SENT_FOR})
  ORDER BY id FOR NO KEY UPDATE
)
UPDATE webhook_deliveries SET due_at = NULL, error = coalesce(error, '{Failure.TOO_LATE}')
WHERE id IN (SELECT id FROM held)"""


async def settle_failed(
    c: Connection,
    claimed: ClaimedDelivery,
    failure: Failure,
    answer: int | None,
    *,
    wait: float | None,
    pause_for: float,
) -> None:
    """Records a failed attempt, unless the claim is lost. The next attempt comes after `wait` seconds, or never if that
    is None.

    Nothing is sent to the endpoint for `pause_for` seconds. What has waited for it too long is given up.
    Requires a transaction.
    """
    if not await _lock_if_held(c, claimed):
        return
    await c.execute(_GIVE_UP_OLD, claimed.endpoint_id)  # first: a pause moves what is due into the future
    await pause(c, claimed.endpoint_id, pause_for)
    await c.execute(_FAILED, claimed.id, claimed.leased_until, wait, answer, failure.value)


_DISABLE = """
UPDATE webhook_endpoints SET disabled_at = now(), disabled_by = 'gone'
WHERE id = $1 AND disabled_at IS NULL"""
_GIVE_UP_WAITING = f"""
WITH held AS MATERIALIZED (
  SELECT id FROM webhook_deliveries WHERE endpoint_id = $1 AND due_at IS NOT NULL ORDER BY id FOR NO KEY UPDATE
)
UPDATE webhook_deliveries SET due_at = NULL, error = coalesce(error, '{Failure.DISABLED}')
WHERE id IN (SELECT id FROM held)"""


async def settle_gone(c: Connection, claimed: ClaimedDelivery) -> None:
    """Disables the endpoint, which said that it wants no more events, unless the claim is lost.

    Requires a transaction.
    """
    if not await _lock_if_held(c, claimed):
        return
    await c.execute(_DISABLE, claimed.endpoint_id)
    await c.execute(_FAILED, claimed.id, claimed.leased_until, None, 410, Failure.GONE.value)
    await give_up_waiting(c, claimed.endpoint_id)


async def give_up_waiting(c: Connection, endpoint_id: str) -> None:
    """Gives up what waits for an endpoint that has been disabled. The caller holds the endpoint's lock."""
    await c.execute(_GIVE_UP_WAITING, endpoint_id)


# --- deleting ---------------------------------------------------------------------------------------------------------

_LOCK_PUSHES = """
SELECT FROM webhook_endpoints e JOIN tasks t ON t.id = e.task_id WHERE t.session_id = $1
ORDER BY e.id FOR UPDATE OF e"""
_LOCK_OF_SESSION = """
SELECT FROM webhook_deliveries d JOIN tasks t ON t.id = d.task_id WHERE t.session_id = $1
ORDER BY d.id FOR UPDATE OF d"""
_LOCK_OF_ENDPOINTS = "SELECT FROM webhook_deliveries WHERE endpoint_id = ANY($1::text[]) ORDER BY id FOR UPDATE"


async def lock_of_session(c: Connection, session_id: SessionId) -> None:
    """Locks the pushes and deliveries of a session that will be deleted. The caller holds the session's lock."""
    await c.execute(_LOCK_PUSHES, session_id)
    await c.execute(_LOCK_OF_SESSION, session_id)


async def lock_of_endpoints(c: Connection, endpoint_ids: Sequence[str]) -> None:
    """Locks the deliveries of endpoints that will be deleted. The caller holds the locks of the endpoints."""
    await c.execute(_LOCK_OF_ENDPOINTS, endpoint_ids)


# It waits for no lock: what another transaction holds is deleted the next time.
_PRUNE = f"""
DELETE FROM webhook_deliveries WHERE id IN (
  SELECT id FROM webhook_deliveries WHERE created_at < now() - make_interval(days => {KEPT_DAYS})
    AND queued_at < now() - make_interval(secs => {2 * SENT_FOR})
  ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)"""


async def prune(c: Connection, limit: int) -> None:
    """Deletes up to `limit` deliveries that the log keeps no longer."""
    await c.execute(_PRUNE, limit)
