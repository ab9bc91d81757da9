"""Facts that a user, or an anonymous session, gave about their business. The owner is `user:<id>` or `session:<id>`."""

from __future__ import annotations

from typing import Any

import asyncpg

from backend.chat.models import Json
from backend.errors import SessionNotFound
from backend.ids import SessionId, UserId
from backend.postgres import Connection

MAX_LIST = 100
"""Entries that a list of facts may have."""
_SESSION, _USER = "session:", "user:"

_ENSURE = """
INSERT INTO understanding (owner, session_id, facts) VALUES ($1, $2, '{}') ON CONFLICT (owner) DO NOTHING"""
# The lock lets no assignment of the session to a user run at the same time: each waits for the other to commit.
_SESSION_USER = "SELECT user_id FROM sessions WHERE id = $1 FOR SHARE"
_LOCKED = "SELECT facts FROM understanding WHERE owner = $1 FOR UPDATE"
_WRITE = "UPDATE understanding SET facts = $2, updated_at = now() WHERE owner = $1"


async def merge_understanding(c: Connection, owner: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Merges facts into the stored ones and returns the result. Raises SessionNotFound if the owning session is gone.

    Lists gain the entries that they lack, and keep their newest MAX_LIST entries. Objects are merged, null changes
    nothing, and any other value replaces the stored one. Facts for a session that has been assigned to a user in the
    meantime become the user's.
    """
    session_id = owner.removeprefix(_SESSION) if owner.startswith(_SESSION) else None
    async with c.transaction():
        if session_id is not None and (user_id := await c.fetchval(_SESSION_USER, session_id)) is not None:
            owner, session_id = f"{_USER}{user_id}", None
        try:
            await c.execute(_ENSURE, owner, session_id)
        except asyncpg.ForeignKeyViolationError as error:
            raise SessionNotFound from error
        known: dict[str, Any] = _merged(await c.fetchval(_LOCKED, owner), facts)
        await c.execute(_WRITE, owner, known)
    return known


_TAKE = "DELETE FROM understanding WHERE owner = $1 RETURNING facts, updated_at"
_LOCKED_WITH_TIME = "SELECT facts, updated_at FROM understanding WHERE owner = $1 FOR UPDATE"
_ADD = """
INSERT INTO understanding (owner, session_id, facts, updated_at) VALUES ($1, NULL, '{}', $2)
ON CONFLICT (owner) DO NOTHING"""
_WRITE_WITH_TIME = "UPDATE understanding SET facts = $2, updated_at = greatest(updated_at, $3) WHERE owner = $1"


async def assign_understanding(c: Connection, session_id: SessionId, user_id: UserId) -> None:
    """Moves the facts of an anonymous session to the user. Where both have a value, the newer facts count.

    Requires a transaction that has locked the session.
    """
    taken = await c.fetchrow(_TAKE, f"{_SESSION}{session_id}")
    if taken is None:
        return
    owner = f"{_USER}{user_id}"
    await c.execute(_ADD, owner, taken["updated_at"])
    known = await c.fetchrow(_LOCKED_WITH_TIME, owner)
    assert known is not None
    older, newer = sorted((known, taken), key=lambda row: row["updated_at"])
    await c.execute(_WRITE_WITH_TIME, owner, _merged(older["facts"], newer["facts"]), taken["updated_at"])


def _merged(known: Json, told: Json) -> Json:
    match known, told:
        case _, None:
            return known
        case dict(), dict():
            return known | {name: _merged(known.get(name), value) for name, value in told.items()}
        case list(), list():
            return [*known, *(item for item in told if item not in known)][-MAX_LIST:]
    return told
