"""The folders of a user. A session is in one of them, or in none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from backend.errors import FolderExists, FolderNotFound, TooManyFolders
from backend.ids import SessionId, UserId, new_folder_id
from backend.postgres import Connection, Row

MAX_FOLDERS = 100
"""The largest number of folders of one user."""
_LOCKS = 7_273_006
"""The class of the advisory locks that `make_folder` takes, one for each user."""
_COLUMNS = "id, name, created_at"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a user. No two folders of one user have the same name."""

    id: str
    name: str
    created_at: datetime


def _parse(row: Row) -> Folder:
    return Folder(**row)


_LIST = f"SELECT {_COLUMNS} FROM folders WHERE user_id = $1 ORDER BY lower(name), name LIMIT {MAX_FOLDERS}"


async def list_folders(c: Connection, user_id: UserId) -> list[Folder]:
    """Returns the folders of the user, by name."""
    return [_parse(row) for row in await c.fetch(_LIST, user_id)]


_LOCK = "SELECT pg_advisory_xact_lock($1, hashtext($2))"
_BY_NAME = f"SELECT {_COLUMNS} FROM folders WHERE user_id = $1 AND name = $2"
_COUNT = "SELECT count(*) FROM folders WHERE user_id = $1"
_INSERT = f"INSERT INTO folders (id, user_id, name) VALUES ($1, $2, $3) RETURNING {_COLUMNS}"


async def make_folder(c: Connection, user_id: UserId, name: str) -> tuple[Folder, bool]:
    """Returns the user's folder with this name, and True if it is new.

    Raises TooManyFolders. Requires a transaction.
    """
    await c.execute(_LOCK, _LOCKS, user_id)
    found = await c.fetchrow(_BY_NAME, user_id, name)
    if found is not None:
        return _parse(found), False
    if await c.fetchval(_COUNT, user_id) >= MAX_FOLDERS:
        raise TooManyFolders
    row = await c.fetchrow(_INSERT, new_folder_id(), user_id, name)
    assert row is not None
    return _parse(row), True


_RENAME = f"UPDATE folders SET name = $3 WHERE id = $1 AND user_id = $2 RETURNING {_COLUMNS}"


async def rename_folder(c: Connection, user_id: UserId, folder_id: str, name: str) -> Folder:
    """Renames a folder. Raises FolderNotFound, and FolderExists if another one has the name."""
    try:
        row = await c.fetchrow(_RENAME, folder_id, user_id, name)
    except asyncpg.UniqueViolationError:
        raise FolderExists from None
    if row is None:
        raise FolderNotFound
    return _parse(row)


# The sessions are locked before the folder, as in `put_into`, so that the two never wait for each other.
_LOCK_SESSIONS = "SELECT id FROM sessions WHERE folder_id = $1 AND user_id = $2 ORDER BY id FOR NO KEY UPDATE"
_DELETE = "DELETE FROM folders WHERE id = $1 AND user_id = $2 RETURNING 1"


async def delete_folder(c: Connection, user_id: UserId, folder_id: str) -> None:
    """Deletes a folder. Its sessions stay, in none. Raises FolderNotFound. Requires a transaction."""
    await c.execute(_LOCK_SESSIONS, folder_id, user_id)
    if await c.fetchval(_DELETE, folder_id, user_id) is None:
        raise FolderNotFound


_PUT = """
UPDATE sessions SET folder_id = $3 WHERE id = $1 AND user_id = $2
  AND ($3::text IS NULL OR EXISTS (SELECT FROM folders WHERE id = $3 AND user_id = $2)) RETURNING 1"""


async def put_into(c: Connection, user_id: UserId, session_id: SessionId, folder_id: str | None) -> None:
    """Moves a session of the user into a folder of the user, or out of all (None). Raises FolderNotFound.

    The caller holds the session's lock.
    """
    try:
        moved = await c.fetchval(_PUT, session_id, user_id, folder_id)
    except asyncpg.ForeignKeyViolationError:  # the folder was deleted meanwhile
        moved = None
    if moved is None:
        raise FolderNotFound
