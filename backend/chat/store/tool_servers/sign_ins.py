"""The links by which users sign in at tool servers. A row lives as long as its link may be opened."""

from __future__ import annotations

from dataclasses import dataclass

from backend.chat.outcomes import Operation
from backend.chat.store.operations import COLUMNS, parse_operation
from backend.ids import SessionId, UserId
from backend.postgres import Connection, Row

MOST = 20
"""Links of one user that stand open. The oldest of more is removed."""
STATE_LIVES = 900.0
"""Seconds that a user may spend at the authorization server."""


@dataclass(frozen=True, slots=True)
class SignInRow:
    id: str
    owner: str
    server: str
    session_id: SessionId
    sealed: bytes
    is_done: bool


def _parse(row: Row | None) -> SignInRow | None:
    return None if row is None else SignInRow(**row)


_COLUMNS = "id, owner, server, session_id, sealed, done_at IS NOT NULL AS is_done"
_ADD = """
INSERT INTO tool_server_sign_ins (id, owner, server, session_id, sealed, expires_at)
SELECT $1, $2, $3, s.id, $5, now() + make_interval(secs => $6) FROM sessions s WHERE s.id = $4"""
_TRIM = f"""
DELETE FROM tool_server_sign_ins WHERE id IN (
  SELECT id FROM tool_server_sign_ins WHERE owner = $1 ORDER BY created_at DESC OFFSET {MOST})"""
_FIND = f"SELECT {_COLUMNS} FROM tool_server_sign_ins WHERE id = $1 AND expires_at > now()"
_BEGIN = f"""
UPDATE tool_server_sign_ins SET sealed = $2, state_hash = $3,
  state_until = now() + make_interval(secs => {STATE_LIVES}) WHERE id = $1 AND done_at IS NULL"""
_WITH_STATE = f"SELECT {_COLUMNS} FROM tool_server_sign_ins WHERE state_hash = $1 AND state_until > now()"
_TAKE = f"""
UPDATE tool_server_sign_ins SET state_hash = NULL, state_until = NULL
WHERE state_hash = $1 AND state_until > now() RETURNING {_COLUMNS}"""
_DONE = "UPDATE tool_server_sign_ins SET done_at = now(), state_hash = NULL WHERE id = $1 RETURNING true"
_IN_VAIN = """
SELECT EXISTS (SELECT FROM tool_server_sign_ins
  WHERE owner = $1 AND server = $2 AND state_hash IS NOT NULL AND done_at IS NULL
    AND state_until > now() - interval '1 day')"""
_PRUNE = "DELETE FROM tool_server_sign_ins WHERE expires_at < now()"
_FORGET = "DELETE FROM tool_server_sign_ins WHERE owner = 'user:' || $1"
_QUESTION = f"""
SELECT {COLUMNS} FROM tasks t WHERE t.session_id = $1 AND t.kind = 'operation' AND t.request->'asks'->>'url' = $2
ORDER BY t.number DESC LIMIT 1"""


async def add(c: Connection, row: SignInRow, *, lives: float) -> None:
    """Adds a link that may be opened for `lives` seconds."""
    await c.execute(_ADD, row.id, row.owner, row.server, row.session_id, row.sealed, lives)
    await c.execute(_TRIM, row.owner)


async def find(c: Connection, id: str) -> SignInRow | None:
    """Returns the link's row, or None if it is unknown or expired."""
    return _parse(await c.fetchrow(_FIND, id))


async def begin(c: Connection, id: str, sealed: bytes, state_hash: str) -> None:
    """Notes that the user leaves for the authorization server. An earlier state of the link is over."""
    await c.execute(_BEGIN, id, sealed, state_hash)


async def with_state(c: Connection, state_hash: str) -> SignInRow | None:
    return _parse(await c.fetchrow(_WITH_STATE, state_hash))


async def take_state(c: Connection, state_hash: str) -> SignInRow | None:
    """Uses up a state. Only one caller gets its row."""
    return _parse(await c.fetchrow(_TAKE, state_hash))


async def mark_done(c: Connection, id: str) -> bool:
    """Notes that the user has signed in. Returns False if the link was deleted, with its session or its user."""
    return bool(await c.fetchval(_DONE, id))


async def has_abandoned_sign_in(c: Connection, owner: str, server: str) -> bool:
    """Returns True if the user has left for the authorization server by a link within a day and is not back."""
    return bool(await c.fetchval(_IN_VAIN, owner, server))


async def question_with(c: Connection, session_id: SessionId, link: str) -> Operation | None:
    """Returns the question that shows the link, or None if no question does."""
    row = await c.fetchrow(_QUESTION, session_id, link)
    return None if row is None else parse_operation(row)


async def prune(c: Connection) -> None:
    """Removes expired links."""
    await c.execute(_PRUNE)


async def forget_user(c: Connection, user_id: UserId) -> None:
    await c.execute(_FORGET, user_id)
