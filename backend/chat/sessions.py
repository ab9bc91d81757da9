"""Sessions: conversations and whose they are.

A caller reaches a session that is theirs or anonymous; "not yours" and "not there" are the same SessionNotFound.
In every transaction that touches both, the session's row is locked before its tasks.
"""

from __future__ import annotations

from backend.chat.models import Caller, Json, Session
from backend.errors import SessionNotFound
from backend.ids import SessionId, TaskId, UserId
from backend.postgres import Connection, Row, containing

_COLUMNS = "id, user_id, title, metadata, created_at, updated_at"

_CREATE = f"""
INSERT INTO sessions (id, user_id, metadata) VALUES ($1, $2, $3)
ON CONFLICT (id) DO NOTHING RETURNING {_COLUMNS}"""

_GET = f"SELECT {_COLUMNS} FROM sessions WHERE id = $1 AND (user_id IS NULL OR user_id = $2)"

_OWNER = "SELECT user_id FROM sessions WHERE id = $1"

# NO KEY: rows that refer to the session may be written meanwhile, so a task's writer never waits here holding the task.
_GET_LOCKED = f"{_GET} FOR NO KEY UPDATE"
_LOCK = "SELECT 1 FROM sessions WHERE id = $1 FOR NO KEY UPDATE"

_COUNT = "SELECT count(*) FROM sessions WHERE user_id = $1 AND ($2::text IS NULL OR title ILIKE $2)"

_LIST = f"""
SELECT {_COLUMNS} FROM sessions WHERE user_id = $1 AND ($2::text IS NULL OR title ILIKE $2)
ORDER BY updated_at DESC, id LIMIT $3 OFFSET $4"""

_SET_TITLE = "UPDATE sessions SET title = $2 WHERE id = $1 AND (NOT $3 OR title IS NULL) RETURNING 1"

_ASSIGN = "UPDATE sessions SET user_id = $2 WHERE id = $1 AND (user_id IS NULL OR user_id = $2) RETURNING 1"
_ASSIGN_TASKS = "UPDATE tasks SET user_id = $2, quota_key = 'user:' || $2 WHERE session_id = $1 AND user_id IS NULL"

_DELETE = """
WITH gone AS (DELETE FROM sessions WHERE id = $1)
SELECT id FROM tasks WHERE session_id = $1 ORDER BY number"""

_TOUCH = "UPDATE sessions SET updated_at = now() WHERE id = $1"


def parse_session(row: Row) -> Session:
    user_id: str | None = row["user_id"]
    return Session(
        id=SessionId(row["id"]),
        user_id=None if user_id is None else UserId(user_id),
        title=row["title"],
        metadata=row["metadata"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


async def create_session(
    c: Connection, session_id: SessionId, user_id: UserId | None, metadata: Json
) -> tuple[Session, bool]:
    """The session and whether it is new. Raises SessionNotFound when the id is another user's."""
    row = await c.fetchrow(_CREATE, session_id, user_id, metadata)
    if row is not None:
        return parse_session(row), True
    row = await c.fetchrow(_GET, session_id, user_id)
    if row is None:
        raise SessionNotFound
    return parse_session(row), False


async def get_session(c: Connection, session_id: SessionId, caller: Caller, *, lock: bool = False) -> Session:
    """Raises SessionNotFound. With `lock`, nobody else gets its lock before this transaction ends."""
    row = await c.fetchrow(_GET_LOCKED if lock else _GET, session_id, caller.user_id)
    if row is None:
        raise SessionNotFound
    return parse_session(row)


async def owner_of(c: Connection, session_id: SessionId) -> UserId | None:
    """Whose session it is, for services, who may reach any; None: an anonymous one. Raises SessionNotFound."""
    row = await c.fetchrow(_OWNER, session_id)
    if row is None:
        raise SessionNotFound
    return None if row["user_id"] is None else UserId(row["user_id"])


async def lock_session(c: Connection, session_id: SessionId) -> bool:
    """Locks the session for this transaction, whoever it belongs to. False when it is gone."""
    return await c.fetchval(_LOCK, session_id) is not None


async def list_sessions(
    c: Connection, user_id: UserId, *, limit: int, offset: int, query: str | None
) -> tuple[list[Session], int]:
    """A page of the user's sessions, last updated first, and how many there are. `query` is found literally."""
    pattern = containing(query) if query else None
    total: int = await c.fetchval(_COUNT, user_id, pattern)
    rows = await c.fetch(_LIST, user_id, pattern, limit, offset) if offset < total else []
    return [parse_session(row) for row in rows], total


async def set_title(c: Connection, session_id: SessionId, title: str, *, only_if_untitled: bool = False) -> bool:
    """Whether the title was set. No change of the conversation, so its place in the list stays."""
    return await c.fetchval(_SET_TITLE, session_id, title, only_if_untitled) is not None


async def assign_user(c: Connection, session_id: SessionId, user_id: UserId) -> None:
    """An anonymous session, and its tasks, become the user's. Raises SessionNotFound when it has another owner.

    Needs a transaction: two statements.
    """
    if await c.fetchval(_ASSIGN, session_id, user_id) is None:
        raise SessionNotFound
    await c.execute(_ASSIGN_TASKS, session_id, user_id)


async def delete_session(c: Connection, session_id: SessionId) -> list[TaskId]:
    """Deletes the session and all that is its own; the ids of its tasks. The caller holds its lock."""
    return [TaskId(row["id"]) for row in await c.fetch(_DELETE, session_id)]


async def touch_session(c: Connection, session_id: SessionId) -> None:
    """Moves the session to the top of its user's list; new messages do so by themselves."""
    await c.execute(_TOUCH, session_id)
