"""Full-text search in the messages of a user. `search_entries` has the words; the texts stay in `messages`.

A job of the executors adds the entries after the messages, so that a turn does not pay for it. Words are taken as they
are, for every language that has spaces between words. Each word begins with a tag of its user, so that the index reads
the words of one user only, even when it looks for a beginning of words.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from backend.chat.models import Message, Role, TextPart
from backend.chat.part_json import parse_parts
from backend.chat.store.derived.words import query_of, snippet_of, vector_of
from backend.chat.store.messages import COLUMNS, parse_message
from backend.errors import SearchTooBroad
from backend.ids import SessionId, UserId
from backend.postgres import Connection, Row

MAX_TEXT = 100_000
"""Characters of a message that can be found. Postgres refuses a text whose words take over 1 MB."""
MAX_BATCH = 500_000
"""Bytes of messages that are added together. Each of their sessions gets its share, or one message. The sessions are
locked meanwhile."""
CANDIDATES = 200
"""The newest messages with all words that are ranked. The limit keeps a search for a common word quick."""
TIME_LIMIT_MS = 2_000


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that was found. `title` is that of its session. `snippet` is as `snippet_of` returns it."""

    message: Message
    title: str | None
    on_current_branch: bool
    snippet: list[tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Unsearched:
    """A session with messages that the search does not know. `user_id` is None if nobody can search in it."""

    session_id: SessionId
    user_id: UserId | None
    searched: int


logger = logging.getLogger(__name__)

# --- adding entries -----------------------------------------------------------------------------------------------

_UNSEARCHED = """
SELECT id, CASE WHEN expires_at IS NULL THEN user_id END AS user_id, searched_sequence
FROM sessions WHERE unsearched_since IS NOT NULL ORDER BY unsearched_since DESC LIMIT $1"""


async def unsearched_sessions(c: Connection, limit: int) -> list[Unsearched]:
    """Returns up to `limit` sessions with messages that the search does not know, the newest first."""
    rows = await c.fetch(_UNSEARCHED, limit)
    return [Unsearched(SessionId(row["id"]), row["user_id"], row["searched_sequence"]) for row in rows]


# Older versions of the product append messages without telling the search.
_MARK_MISSED = """
UPDATE sessions SET unsearched_since = now() WHERE id IN (
    SELECT id FROM sessions
    WHERE unsearched_since IS NULL AND searched_sequence < last_sequence AND user_id IS NOT NULL AND expires_at IS NULL
    LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
)"""


async def mark_missed_sessions(c: Connection, limit: int) -> None:
    """Marks up to `limit` sessions with messages that the search was not told of. Slow, as it reads every session."""
    await c.execute(_MARK_MISSED, limit)


_NEXT = f"""
WITH wanted AS (
    SELECT * FROM unnest($1::text[], $2::int[]) AS wanted (session_id, searched)
), read AS (
    SELECT session_id, sequence, created_at, CASE WHEN role = '{Role.TOOL}' THEN '[]' ELSE parts END AS parts
    FROM wanted CROSS JOIN LATERAL (
        SELECT sequence, created_at, role, parts FROM messages
        WHERE messages.session_id = wanted.session_id AND sequence > searched ORDER BY sequence LIMIT $3
    ) AS next
), sized AS (
    SELECT *, sum(octet_length(parts::text)) OVER (PARTITION BY session_id ORDER BY sequence)
      - octet_length(parts::text) AS before FROM read
)
SELECT session_id, sequence, parts, created_at FROM sized WHERE before < $4 ORDER BY session_id, sequence"""
_SKIP = """
UPDATE sessions SET unsearched_since = NULL WHERE id = ANY($1) AND (user_id IS NULL OR expires_at IS NOT NULL)"""
# A session that a turn has locked is left for the next sweep, so that locks of several sessions cannot deadlock.
_SEARCHED = """
UPDATE sessions
SET searched_sequence = newest, unsearched_since = CASE WHEN last_sequence > newest THEN unsearched_since END
FROM (
    SELECT sessions.id, newest FROM sessions
    JOIN unnest($1::text[], $2::text[], $3::int[], $4::int[]) AS done (id, user_id, searched, newest)
      ON sessions.id = done.id AND sessions.user_id = done.user_id AND searched_sequence = searched
    FOR NO KEY UPDATE OF sessions SKIP LOCKED
) AS free WHERE sessions.id = free.id RETURNING sessions.id, sessions.user_id"""
_ADD = f"""
WITH searched AS ({_SEARCHED}), added AS (
    INSERT INTO search_entries (session_id, sequence, user_id, words, created_at)
    SELECT id, new.sequence, user_id, new.words::tsvector, new.created_at FROM searched
    JOIN unnest($5::text[], $6::int[], $7::text[], $8::timestamptz[]) AS new (session_id, sequence, words, created_at)
      ON id = session_id
    ON CONFLICT DO NOTHING
)
SELECT id FROM searched"""


async def add_entries(c: Connection, some: Sequence[Unsearched], limit: int) -> int:
    """Adds the next `limit` messages of each of these sessions, or fewer if they are long. Returns how many it added.

    Changes nothing in a session that is gone, that is locked, or in which another executor was quicker.
    """
    if nobodys := [one.session_id for one in some if one.user_id is None]:
        await c.execute(_SKIP, nobodys)
    owned = [one for one in some if one.user_id is not None]
    if not owned:
        return 0
    sizes = (limit, MAX_BATCH // len(owned))
    rows = await c.fetch(_NEXT, [one.session_id for one in owned], [one.searched for one in owned], *sizes)
    newest = {one.session_id: one.searched for one in owned} | {row["session_id"]: row["sequence"] for row in rows}
    tags = {one.session_id: _tag_of(one.user_id) for one in owned if one.user_id is not None}
    told = await asyncio.to_thread(_told, rows, tags)  # a long text takes a while
    done = [(one.session_id, one.user_id, one.searched, newest[one.session_id]) for one in owned]
    savepoint = c.transaction() if c.is_in_transaction() else contextlib.nullcontext()  # it is one over a pooler
    try:
        async with savepoint:
            added = await c.fetch(_ADD, *_columns(done, 4), *_columns(told, 4))
    except (asyncpg.DataError, asyncpg.ProgramLimitExceededError) as error:  # it would stop all that follow
        if len(owned) > 1:
            return sum([await add_entries(c, [one], limit) for one in owned])
        session_id = owned[0].session_id
        logger.warning("messages cannot be searched", extra={"session_id": session_id, "why": str(error)[:200]})
        added = await c.fetch(_SEARCHED, *_columns(done, 4))
    ids = {row["id"] for row in added}
    return sum(row["session_id"] in ids for row in rows)


def _columns(rows: Sequence[tuple[object, ...]], count: int) -> list[list[object]]:
    return [[row[n] for row in rows] for n in range(count)]


def _told(rows: Sequence[Row], tags: Mapping[SessionId, str]) -> list[tuple[str, int, str, datetime]]:
    """Returns session, sequence, words and time of each row that has words."""
    vectors = (
        (row["session_id"], row["sequence"], _vector(row["parts"], tags[row["session_id"]]), row["created_at"])
        for row in rows
    )
    return [entry for entry in vectors if entry[2]]


def _vector(parts: Sequence[Any], tag: str) -> str:
    return vector_of(text_of(parse_parts([part for part in parts if part["type"] == "text"])), tag)


def _tag_of(user_id: UserId) -> str:
    return hashlib.sha256(user_id.encode()).hexdigest()[:8]


def text_of(parts: Sequence[object]) -> str:
    """Returns what can be found in a message."""
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))[:MAX_TEXT]


# --- finding ------------------------------------------------------------------------------------------------------

_FIND = f"""
WITH newest AS MATERIALIZED (
    SELECT session_id, sequence, words, created_at FROM search_entries
    WHERE user_id = $1 AND words @@ $2::tsquery ORDER BY created_at DESC LIMIT {CANDIDATES}
)
SELECT s.title, m.superseded_by IS NULL AS on_current, {", ".join(f"m.{name.strip()}" for name in COLUMNS.split(","))}
FROM newest n JOIN sessions s ON s.id = n.session_id
JOIN messages m ON m.session_id = n.session_id AND m.sequence = n.sequence
ORDER BY ts_rank_cd(n.words, $2::tsquery, 1) DESC, n.created_at DESC, n.session_id, n.sequence
LIMIT $3 OFFSET $4"""


async def find_messages(c: Connection, user_id: UserId, asked: str, *, limit: int, offset: int) -> list[Hit]:
    """Returns the user's messages that have all words of `asked`, the best of the newest CANDIDATES first.

    A word also finds words that begin with it; words in double quotes are found side by side. A text without a letter
    or a digit finds nothing. Raises SearchTooBroad after TIME_LIMIT_MS. Requires a transaction.
    """
    query = query_of(asked, _tag_of(user_id))
    if not query:
        return []
    # PostgreSQL must plan for these very words: a common word needs another plan than a rare one.
    await c.execute(f"SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL statement_timeout = {TIME_LIMIT_MS}")
    try:
        rows = await c.fetch(_FIND, user_id, query, limit, offset)
    except asyncpg.QueryCanceledError as error:
        raise SearchTooBroad from error
    return await asyncio.to_thread(lambda: [_hit(row, asked) for row in rows])  # long texts take a while


def _hit(row: Row, asked: str) -> Hit:
    message = parse_message(row)
    return Hit(message, row["title"], row["on_current"], snippet_of(text_of(message.parts), asked))
