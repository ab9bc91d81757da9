"""Sessions: conversations and their owners.

Callers may access their own sessions and anonymous ones. SessionNotFound does not tell a session of another user from
a missing one. Every transaction that touches both a session and its tasks locks the session's row first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.chat.models import Caller, Json, ModelChoice, Session
from backend.chat.store.attachments import files
from backend.chat.store.published import feature_requests
from backend.chat.store.tool_servers import grants, sign_ins
from backend.chat.store.tool_servers.grants import Grant
from backend.chat.store.webhooks import deliveries, endpoints
from backend.errors import SessionNotFound
from backend.ids import SessionId, TaskId, UserId
from backend.postgres import Connection, Row, containing

_COLUMNS = "id, user_id, title, metadata, created_at, updated_at, model, effort, pinned, archived, folder_id"

_GET = f"SELECT {_COLUMNS} FROM sessions WHERE id = $1 AND (user_id IS NULL OR user_id = $2)"


@dataclass(frozen=True, slots=True)
class CreatedSession:
    """The session with the requested id. `is_new` is False if it existed before."""

    session: Session
    is_new: bool


def parse_session(row: Row) -> Session:
    user_id: str | None = row["user_id"]
    return Session(
        id=SessionId(row["id"]),
        user_id=None if user_id is None else UserId(user_id),
        title=row["title"],
        metadata=row["metadata"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        choice=ModelChoice(row["model"], row["effort"]),
        pinned=row["pinned"],
        archived=row["archived"],
        folder_id=row["folder_id"],
    )


_CREATE = f"""
INSERT INTO sessions (id, user_id, metadata, expires_at)
VALUES ($1, $2, $3, now() + make_interval(secs => $4))
ON CONFLICT (id) DO NOTHING RETURNING {_COLUMNS}"""


async def insert_session(
    c: Connection, session_id: SessionId, user_id: UserId | None, metadata: Json, *, lives: float | None = None
) -> Session | None:
    """Creates a session. Returns None if one with this id exists, whoever owns it.

    With `lives`, it is in no list, and is deleted after `lives` seconds, once nothing runs or waits in it.
    """
    row = await c.fetchrow(_CREATE, session_id, user_id, metadata, lives)
    return None if row is None else parse_session(row)


async def create_session(
    c: Connection, session_id: SessionId, user_id: UserId | None, metadata: Json, *, lives: float | None = None
) -> CreatedSession:
    """Creates a session, or returns the one that has this id. Raises SessionNotFound if that one is another user's."""
    created = await insert_session(c, session_id, user_id, metadata, lives=lives)
    if created is not None:
        return CreatedSession(created, is_new=True)
    row = await c.fetchrow(_GET, session_id, user_id)
    if row is None:
        raise SessionNotFound
    return CreatedSession(parse_session(row), is_new=False)


# NO KEY, here and in _LOCK: while the row is locked, other transactions may write rows that refer to the session. So
# none of them waits for this lock while it holds the lock of a task's row.
_GET_LOCKED = f"{_GET} FOR NO KEY UPDATE"


async def get_session(c: Connection, session_id: SessionId, caller: Caller, *, lock: bool = False) -> Session:
    """Returns a session. Raises SessionNotFound. With `lock`, its row stays locked until this transaction ends."""
    row = await c.fetchrow(_GET_LOCKED if lock else _GET, session_id, caller.user_id)
    if row is None:
        raise SessionNotFound
    return parse_session(row)


_OWNER = "SELECT user_id FROM sessions WHERE id = $1"


async def owner_of(c: Connection, session_id: SessionId) -> UserId | None:
    """Returns the session's user, or None if it is anonymous. For services, which may access any session.

    Raises SessionNotFound.
    """
    row = await c.fetchrow(_OWNER, session_id)
    if row is None:
        raise SessionNotFound
    return None if row["user_id"] is None else UserId(row["user_id"])


_OWNERS = "SELECT id, user_id FROM sessions WHERE id = ANY($1::text[]) AND user_id IS NOT NULL"


async def owners_of(c: Connection, session_ids: Sequence[SessionId]) -> dict[SessionId, UserId]:
    """Returns the users to whom these sessions belong, without anonymous and deleted sessions."""
    return {SessionId(row["id"]): UserId(row["user_id"]) for row in await c.fetch(_OWNERS, session_ids)}


_LOCK = "SELECT 1 FROM sessions WHERE id = $1 FOR NO KEY UPDATE"


async def lock_session(c: Connection, session_id: SessionId) -> bool:
    """Locks any user's session until this transaction ends. Returns False if it does not exist."""
    return await c.fetchval(_LOCK, session_id) is not None


_LISTED = """user_id = $1 AND expires_at IS NULL AND archived = $3 AND ($2::text IS NULL OR title ILIKE $2)
  AND ($4::text IS NULL OR folder_id = $4)"""
_COUNT = f"SELECT count(*) FROM sessions WHERE {_LISTED}"

_LIST = f"""
SELECT {_COLUMNS} FROM sessions WHERE {_LISTED}
ORDER BY pinned DESC, updated_at DESC, id LIMIT $5 OFFSET $6"""


async def list_sessions(
    c: Connection,
    user_id: UserId,
    *,
    limit: int,
    offset: int,
    query: str | None,
    archived: bool = False,
    folder: str | None = None,
) -> tuple[list[Session], int]:
    """Returns a page of the user's sessions, pinned ones first, then last updated first, and how many there are in all.

    Counts and returns either the archived sessions or the others. With `query`, only those whose title contains this
    text, ignoring case. With `folder`, only those in it.
    """
    pattern = containing(query) if query else None
    total: int = await c.fetchval(_COUNT, user_id, pattern, archived, folder)
    rows = await c.fetch(_LIST, user_id, pattern, archived, folder, limit, offset) if offset < total else []
    return [parse_session(row) for row in rows], total


_SET_TITLE = "UPDATE sessions SET title = $2 WHERE id = $1 AND (NOT $3 OR title IS NULL) RETURNING 1"


async def set_title(c: Connection, session_id: SessionId, title: str, *, only_if_untitled: bool = False) -> bool:
    """Sets the session's title. Returns False if the session is gone, or has a title and `only_if_untitled` is true.

    The session keeps its place in its user's list, since the conversation itself does not change.
    """
    return await c.fetchval(_SET_TITLE, session_id, title, only_if_untitled) is not None


_SET_PLACE = """
UPDATE sessions SET pinned = coalesce($2, pinned), archived = coalesce($3, archived) WHERE id = $1"""


async def pin_or_archive(c: Connection, session_id: SessionId, *, pinned: bool | None, archived: bool | None) -> None:
    """Pins or archives the session, or ends that. None leaves one as it is. The caller holds the session's lock."""
    await c.execute(_SET_PLACE, session_id, pinned, archived)


_CHOICE = "SELECT model, effort FROM sessions WHERE id = $1"


async def choice_of(c: Connection, session_id: SessionId) -> ModelChoice:
    """Returns the model of any user's session. The default one if the session does not exist."""
    row = await c.fetchrow(_CHOICE, session_id)
    return ModelChoice() if row is None else ModelChoice(row["model"], row["effort"])


_SET_CHOICE = "UPDATE sessions SET model = $2, effort = $3 WHERE id = $1"


async def set_choice(c: Connection, session_id: SessionId, choice: ModelChoice) -> None:
    """Stores the model that answers in the session from now on. The caller holds the session's lock."""
    await c.execute(_SET_CHOICE, session_id, choice.model, choice.effort)


_ASSIGN = """
UPDATE sessions SET user_id = $2, unsearched_since = coalesce(unsearched_since, now())
WHERE id = $1 AND (user_id IS NULL OR user_id = $2) RETURNING 1"""
_ASSIGN_TASKS = "UPDATE tasks SET user_id = $2, quota_key = 'user:' || $2 WHERE session_id = $1 AND user_id IS NULL"


async def assign_user(c: Connection, session_id: SessionId, user_id: UserId) -> None:
    """Gives an anonymous session, its tasks and its files to a user. Raises SessionNotFound.

    Requires a transaction, because it takes several statements.
    """
    if await c.fetchval(_ASSIGN, session_id, user_id) is None:
        raise SessionNotFound
    await c.execute(_ASSIGN_TASKS, session_id, user_id)
    await files.assign_files(c, session_id, user_id)


_DELETE = """
WITH gone AS (DELETE FROM sessions WHERE id = $1)
SELECT id FROM tasks WHERE session_id = $1 ORDER BY number"""


async def delete_session(c: Connection, session_id: SessionId) -> list[TaskId]:
    """Deletes the session with all rows that belong to it. Returns the ids of its tasks. The caller holds its lock."""
    await deliveries.lock_of_session(c, session_id)
    await files.expire_files_of_session(c, session_id)
    return [TaskId(row["id"]) for row in await c.fetch(_DELETE, session_id)]


_TOUCH = "UPDATE sessions SET updated_at = now() WHERE id = $1"


async def touch_session(c: Connection, session_id: SessionId) -> None:
    """Moves the session to the top of its user's list. New messages do that without this call."""
    await c.execute(_TOUCH, session_id)


_IS_IDLE = "NOT EXISTS (SELECT 1 FROM tasks t WHERE t.session_id = s.id AND t.status IN ('queued', 'running'))"
_IS_UNUSED = "updated_at < now() - make_interval(days => $1)"
_OVER = f"SELECT id FROM sessions s WHERE expires_at < now() AND {_IS_IDLE} ORDER BY expires_at LIMIT $1"
_UNUSED = f"SELECT id FROM sessions s WHERE {_IS_UNUSED} AND {_IS_IDLE} ORDER BY updated_at LIMIT $2"


async def expired_sessions(c: Connection, days: int, limit: int) -> list[SessionId]:
    """Returns up to `limit` sessions whose time is over and in which nothing runs or waits.

    These are sessions with an end of their own, and if `days` is not 0, those in which nothing has happened for
    `days` days.
    """
    rows = await c.fetch(_OVER, limit)
    if days and len(rows) < limit:
        rows += await c.fetch(_UNUSED, days, limit - len(rows))
    return [SessionId(row["id"]) for row in rows]


_LOCK_EXPIRED = f"""
SELECT {_COLUMNS} FROM sessions s
WHERE id = $2 AND (expires_at < now() OR ($1 > 0 AND {_IS_UNUSED})) AND {_IS_IDLE} FOR NO KEY UPDATE"""


async def lock_expired(c: Connection, session_id: SessionId, days: int) -> Session | None:
    """Locks the session until this transaction ends, and returns it. Returns None if it is no longer expired."""
    row = await c.fetchrow(_LOCK_EXPIRED, days, session_id)
    return None if row is None else parse_session(row)


_OF_USER = "SELECT id FROM sessions WHERE user_id = $1 ORDER BY id LIMIT $2"


async def sessions_of(c: Connection, user_id: UserId, limit: int) -> list[SessionId]:
    """Returns the ids of up to `limit` of the user's sessions."""
    return [SessionId(row["id"]) for row in await c.fetch(_OF_USER, user_id, limit)]


_LOCK_BUSY = """
SELECT id FROM sessions s WHERE user_id = $1
  AND EXISTS (SELECT 1 FROM tasks t WHERE t.session_id = s.id AND t.status IN ('queued', 'running'))
ORDER BY id FOR NO KEY UPDATE"""


async def lock_busy_sessions(c: Connection, user_id: UserId) -> list[SessionId]:
    """Locks the user's sessions in which a task has not ended, until this transaction ends. Returns their ids."""
    return [SessionId(row["id"]) for row in await c.fetch(_LOCK_BUSY, user_id)]


_FORGET_AGENTS = "DELETE FROM library_agents WHERE user_id = $1"
_FORGET_FOLDERS = "DELETE FROM folders WHERE user_id = $1"
_FORGET_FACTS = "DELETE FROM understanding WHERE owner = 'user:' || $1"
# A session that the user begins during the deletion keeps its tasks as they are.
_FORGET_INSTRUCTIONS = "DELETE FROM user_instructions WHERE user_id = $1"
_FORGET_TASKS = """
UPDATE tasks t SET user_id = NULL, quota_key = 'session:' || session_id
WHERE user_id = $1 AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = t.session_id AND s.user_id = $1)"""


async def forget_user(c: Connection, user_id: UserId) -> list[Grant]:
    """Deletes the user's agents, folders, facts, instructions, webhooks, files, feature requests and tokens of servers.

    Removes the user from tasks in anonymous sessions.

    The user's earlier sessions are deleted. Returns the tokens, which can be revoked. Requires a transaction.
    """
    await endpoints.delete_endpoints(c, user_id)
    await files.expire_files_of_user(c, user_id)
    await sign_ins.forget_user(c, user_id)  # first: a sign-in marks its link before it stores tokens
    forgotten = await grants.forget_user(c, user_id)
    await feature_requests.forget_user(c, user_id)
    for statement in (_FORGET_AGENTS, _FORGET_FOLDERS, _FORGET_FACTS, _FORGET_INSTRUCTIONS, _FORGET_TASKS):
        await c.execute(statement, user_id)
    return forgotten
