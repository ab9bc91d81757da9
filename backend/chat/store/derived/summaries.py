"""Summaries: what models read in place of the older messages of a long conversation.

A summary belongs to the message that it ends at (`through`), and so to all branches that contain this message: each of
them has the same messages before it. A row without a text is a claim to make one. The text is stored once, by the claim
that is still valid, and never changes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from backend.chat.store import sessions
from backend.ids import SessionId
from backend.postgres import Connection, Row

MAX_ATTEMPTS = 3
"""Attempts to make the summary that ends at one message."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary, or attempts to make one. `text` is None until it is made.

    `calls` are the ids of tool calls that models still read, since the operations that they began were not over.
    `messages` is the number of messages, as people see them, for which the text stands.
    """

    through: int
    text: str | None
    calls: frozenset[str]
    messages: int
    attempts: int

    @property
    def given_up(self) -> bool:
        return self.text is None and self.attempts >= MAX_ATTEMPTS


@dataclass(frozen=True, slots=True)
class SummaryClaim:
    """The right to make the summary that ends at `through`, until another attempt begins."""

    session_id: SessionId
    through: int
    attempt: int


_COLUMNS = "through, text, calls, messages, attempts"


def _parse(row: Row) -> Summary:
    return Summary(row["through"], row["text"], frozenset(row["calls"]), row["messages"], row["attempts"])


_NEWEST = f"""
SELECT {_COLUMNS} FROM summaries
WHERE session_id = $1 AND text IS NOT NULL AND through = ANY($2::int[]) ORDER BY through DESC LIMIT 1"""


async def newest_summary(c: Connection, session_id: SessionId, places: Sequence[int]) -> Summary | None:
    """Returns the last summary that ends at one of these messages of a branch."""
    row = await c.fetchrow(_NEWEST, session_id, places)
    return None if row is None else _parse(row)


_UNMADE = f"""
SELECT {_COLUMNS} FROM summaries
WHERE session_id = $1 AND text IS NULL AND through = ANY($2::int[]) ORDER BY through DESC LIMIT 1"""


async def newest_attempt(c: Connection, session_id: SessionId, places: Sequence[int]) -> Summary | None:
    """Returns the last summary that ends at one of these messages and is not made yet."""
    row = await c.fetchrow(_UNMADE, session_id, places)
    return None if row is None else _parse(row)


_CLAIM = """
INSERT INTO summaries AS s (session_id, through, calls, messages, claimed_until)
SELECT $1, $2, $3, $4, now() + make_interval(secs => $5)
WHERE NOT EXISTS (SELECT 1 FROM summaries WHERE session_id = $1 AND text IS NULL AND claimed_until > now())
ON CONFLICT (session_id, through) DO UPDATE
SET calls = excluded.calls, messages = excluded.messages, claimed_until = excluded.claimed_until,
  attempts = s.attempts + 1
WHERE s.text IS NULL AND s.attempts < $6
RETURNING attempts"""


async def claim_summary(
    c: Connection, session_id: SessionId, through: int, *, calls: Collection[str], messages: int, seconds: float
) -> SummaryClaim | None:
    """Claims the summary that ends at this message for `seconds`. Requires a transaction.

    Returns None if it is made or given up, if an attempt at any summary of the session runs, or if the session is gone.
    """
    if not await sessions.lock_session(c, session_id):
        return None
    attempt = await c.fetchval(_CLAIM, session_id, through, list(calls), messages, seconds, MAX_ATTEMPTS)
    return None if attempt is None else SummaryClaim(session_id, through, attempt)


_STORE = """
UPDATE summaries SET text = $4, claimed_until = NULL
WHERE session_id = $1 AND through = $2 AND attempts = $3 AND text IS NULL RETURNING 1"""


_RELEASE = """
UPDATE summaries SET claimed_until = NULL, attempts = attempts - 1
WHERE session_id = $1 AND through = $2 AND attempts = $3 AND text IS NULL"""


async def release_claim(c: Connection, claim: SummaryClaim) -> None:
    """Ends an attempt that was cancelled: the next one may begin at once, and this one does not count.

    Does nothing if another attempt has begun since, or the session is gone. Requires a transaction, as `end_attempt`.
    """
    if await sessions.lock_session(c, claim.session_id):
        await c.execute(_RELEASE, claim.session_id, claim.through, claim.attempt)


async def end_attempt(c: Connection, claim: SummaryClaim, text: str | None) -> bool:
    """Stores the text, or None if the attempt has failed. Returns False if another attempt has begun since, or the
    session is gone. Requires a transaction. Locks the session first, as its deletion does, so that the two cannot
    deadlock.
    """
    if not await sessions.lock_session(c, claim.session_id):
        return False
    key = (claim.session_id, claim.through, claim.attempt)
    return await c.fetchval(_STORE, *key, text) is not None
