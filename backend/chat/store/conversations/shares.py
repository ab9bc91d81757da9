"""Share links: whoever has the link reads a copy of a conversation, which later messages do not change."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from backend.chat.models import Json
from backend.errors import ShareNotFound
from backend.ids import SessionId
from backend.postgres import Connection

_TOKEN_BYTES = 32
TOKEN_PATTERN = r"^[A-Za-z0-9_-]{43}$"  # noqa: S105 - a pattern
"""The form of a link's secret: 32 random bytes as base64url."""


@dataclass(frozen=True, slots=True)
class Share:
    """The link of a session, and when its copy was made. `token` is the secret of the link."""

    token: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SharedCopy:
    """What everyone who has the link reads."""

    title: str | None
    messages: list[Json]
    created_at: datetime


_OF_SESSION = "SELECT token, created_at FROM shares WHERE session_id = $1"


async def share_of(c: Connection, session_id: SessionId) -> Share | None:
    """Returns the link of a session, or None. The caller has checked who may access the session."""
    row = await c.fetchrow(_OF_SESSION, session_id)
    return None if row is None else Share(row["token"], row["created_at"])


_SET = """
INSERT INTO shares (session_id, token, title, messages) VALUES ($1, $2, $3, $4)
ON CONFLICT (session_id) DO UPDATE SET title = excluded.title, messages = excluded.messages, created_at = now()
RETURNING token, created_at"""


async def set_share(c: Connection, session_id: SessionId, title: str | None, messages: list[Json]) -> Share:
    """Makes the link of a session, or replaces the copy behind it; the link stays the same.

    The caller has checked who may access the session.
    """
    row = await c.fetchrow(_SET, session_id, secrets.token_urlsafe(_TOKEN_BYTES), title, messages)
    assert row is not None
    return Share(row["token"], row["created_at"])


_REMOVE = "DELETE FROM shares WHERE session_id = $1"


async def remove_share(c: Connection, session_id: SessionId) -> None:
    """Ends the link of a session for good: a new one has another secret. Does nothing if there is none."""
    await c.execute(_REMOVE, session_id)


_READ = "SELECT title, messages, created_at FROM shares WHERE token = $1"


async def read_share(c: Connection, token: str) -> SharedCopy:
    """Returns the copy behind a link. Raises ShareNotFound."""
    row = await c.fetchrow(_READ, token)
    if row is None:
        raise ShareNotFound
    return SharedCopy(row["title"], row["messages"], row["created_at"])
