"""What a user, or an anonymous session, told about their business. The owner is `user:<id>` or `session:<id>`."""

from __future__ import annotations

from typing import Any

import asyncpg

from backend.chat.models import Json
from backend.errors import SessionNotFound
from backend.postgres import Connection

MAX_LIST = 100
_SESSION = "session:"

_ENSURE = """
INSERT INTO understanding (owner, session_id, facts) VALUES ($1, $2, '{}') ON CONFLICT (owner) DO NOTHING"""
_LOCKED = "SELECT facts FROM understanding WHERE owner = $1 FOR UPDATE"
_WRITE = "UPDATE understanding SET facts = $2, updated_at = now() WHERE owner = $1"


async def merge_understanding(c: Connection, owner: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Adds facts to what is known and returns all of it. Raises SessionNotFound when the owning session is gone.

    A list gains what it lacks (its newest MAX_LIST entries stay), an object is merged, null changes nothing, and
    anything else replaces what was there.
    """
    session_id = owner.removeprefix(_SESSION) if owner.startswith(_SESSION) else None
    async with c.transaction():
        try:
            await c.execute(_ENSURE, owner, session_id)
        except asyncpg.ForeignKeyViolationError as error:
            raise SessionNotFound from error
        known: dict[str, Any] = _merged(await c.fetchval(_LOCKED, owner), facts)
        await c.execute(_WRITE, owner, known)
    return known


def _merged(known: Json, told: Json) -> Json:
    match known, told:
        case _, None:
            return known
        case dict(), dict():
            return known | {name: _merged(known.get(name), value) for name, value in told.items()}
        case list(), list():
            return [*known, *(item for item in told if item not in known)][-MAX_LIST:]
    return told
