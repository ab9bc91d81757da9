"""Pauses of failing endpoints. What waits for a paused endpoint is due at the end of the pause, and not read before.

An act that changes a pause locks the endpoint, then moves the deliveries that were due at the end of the pause.
"""

from __future__ import annotations

from datetime import datetime

from backend.postgres import Connection

_LOCK = "SELECT paused_until FROM webhook_endpoints WHERE id = $1 FOR NO KEY UPDATE"
_MOVE = """
WITH held AS MATERIALIZED (
  SELECT id FROM webhook_deliveries WHERE endpoint_id = $1 AND due_at = $2 ORDER BY id FOR NO KEY UPDATE
)
UPDATE webhook_deliveries SET due_at = coalesce($3, now()) WHERE id IN (SELECT id FROM held)"""
# clock_timestamp(): the time of a delivery that failed is counted from now(), so the two times differ.
_PAUSE = """
UPDATE webhook_endpoints SET failing_since = coalesce(failing_since, now()),
  paused_until = greatest(paused_until, clock_timestamp() + make_interval(secs => $2))
WHERE id = $1 RETURNING paused_until"""
_END_PAUSE = "UPDATE webhook_endpoints SET paused_until = NULL WHERE id = $1 AND paused_until IS NOT NULL"


async def pause(c: Connection, endpoint_id: str, seconds: float) -> None:
    """Has nothing sent to the endpoint for at least `seconds`, because it fails. Requires a transaction."""
    before: datetime | None = await c.fetchval(_LOCK, endpoint_id)
    until: datetime | None = await c.fetchval(_PAUSE, endpoint_id, seconds)
    if before is not None and before != until:
        await c.execute(_MOVE, endpoint_id, before, until)


async def end_pause(c: Connection, endpoint_id: str) -> None:
    """Makes due what waits for the pause to end. Does nothing if there is none. Requires a transaction."""
    until: datetime | None = await c.fetchval(_LOCK, endpoint_id)
    if until is not None:
        await c.execute(_MOVE, endpoint_id, until, None)
        await c.execute(_END_PAUSE, endpoint_id)


# FOR SHARE: nobody changes the pause meanwhile. Nothing here waits for a lock, so it may lock in any order.
_SET_ASIDE = """
WITH closed AS MATERIALIZED (
  SELECT e.id, e.paused_until, e.disabled_at FROM webhook_endpoints e
  WHERE (e.disabled_at IS NOT NULL OR e.paused_until > now())
    AND e.id IN (SELECT endpoint_id FROM webhook_deliveries WHERE due_at <= now())
  FOR SHARE SKIP LOCKED
), held AS MATERIALIZED (
  SELECT d.id, closed.paused_until, closed.disabled_at
  FROM closed JOIN webhook_deliveries d ON d.endpoint_id = closed.id AND d.due_at <= now()
  LIMIT $1 FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE webhook_deliveries d SET due_at = CASE WHEN held.disabled_at IS NULL THEN held.paused_until END,
  error = CASE WHEN held.disabled_at IS NULL THEN d.error ELSE coalesce(d.error, $2) END
FROM held WHERE d.id = held.id"""


async def set_aside(c: Connection, limit: int, *, disabled: str) -> None:
    """Moves up to `limit` due deliveries of paused endpoints to the end of the pause. Gives up those of disabled ones.

    A turn that ended while its endpoint was being disabled or paused may have left such a delivery. `disabled` is the
    error of one that is given up.
    """
    await c.execute(_SET_ASIDE, limit, disabled)
