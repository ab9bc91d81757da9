"""Instructions for models: of a user, for all their conversations, and of one session."""

from __future__ import annotations

from dataclasses import dataclass

from backend.ids import SessionId, UserId
from backend.postgres import Connection

MAX_INSTRUCTIONS = 4_000  # characters


@dataclass(frozen=True, slots=True)
class Instructions:
    """The instructions that hold in a session. None if there are none."""

    user: str | None = None
    session: str | None = None


_OF_USER = "SELECT text FROM user_instructions WHERE user_id = $1"
_SET = """
INSERT INTO user_instructions (user_id, text) VALUES ($1, $2)
ON CONFLICT (user_id) DO UPDATE SET text = excluded.text, updated_at = now()"""
_REMOVE = "DELETE FROM user_instructions WHERE user_id = $1"
_SET_IN_SESSION = "UPDATE sessions SET instructions = $2 WHERE id = $1"
_OF_SESSION = """
SELECT s.instructions, u.text FROM sessions s LEFT JOIN user_instructions u ON u.user_id = s.user_id WHERE s.id = $1"""


async def user_instructions(c: Connection, user_id: UserId) -> str | None:
    text: str | None = await c.fetchval(_OF_USER, user_id)
    return text


async def set_user_instructions(c: Connection, user_id: UserId, text: str | None) -> None:
    """Replaces the user's instructions. None or an empty text removes them."""
    if text:
        await c.execute(_SET, user_id, text)
    else:
        await c.execute(_REMOVE, user_id)


async def set_session_instructions(c: Connection, session_id: SessionId, text: str | None) -> None:
    """Replaces a session's instructions. None or an empty text removes them. The caller has checked who owns it."""
    await c.execute(_SET_IN_SESSION, session_id, text or None)


async def instructions_of(c: Connection, session_id: SessionId) -> Instructions:
    """Returns what models are told in any user's session."""
    row = await c.fetchrow(_OF_SESSION, session_id)
    return Instructions() if row is None else Instructions(row["text"], row["instructions"])
