"""Files of users: who may read them, which conversation uses them, and how long they are kept.

A caller may read own files and anonymous ones. Once a conversation uses a file, whoever may read the conversation may
read the file. FileNotFound does not tell a file of another user from a missing one. A row is written after its object
and deleted after it, so each row has an object, unless an operator deleted that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.chat.models import Caller, FilePart
from backend.errors import FileNotFound, IdempotencyKeyReused, TooManyFiles
from backend.ids import FileId, SessionId, TaskId, UserId
from backend.postgres import Connection, Row

UNUSED_FOR = 86_400
"""Seconds for which a file is kept that no message uses."""
_LOCKS = 7_273_011
"""The class of the advisory locks that `insert_file` takes, one for each user."""
COLUMNS = "f.id, f.media_type, f.filename, f.size, f.pages, f.sha256, f.link_key, f.created_at, f.path"
KEPT = "(f.expires_at IS NULL OR f.expires_at > clock_timestamp())"
"""Not now(): a message may wait for its session's lock while its file is deleted."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file whose object is stored. `source_sha256` and `key` tell a request that is sent again."""

    id: FileId
    media_type: str
    filename: str
    size: int
    pages: int
    sha256: str
    source_sha256: str
    link_key: str
    key: str | None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that may be read. `link_key` signs links to it. `path` is its place in a workspace, if a tool wrote it."""

    part: FilePart
    sha256: str
    link_key: str
    created_at: datetime
    path: str | None

    @property
    def id(self) -> FileId:
        return self.part.file_id


def parse_file(row: Row) -> StoredFile:
    """Returns the file of a row that has COLUMNS."""
    part = FilePart(FileId(row["id"]), row["media_type"], row["filename"], row["size"], row["pages"])
    return StoredFile(part, row["sha256"], row["link_key"], row["created_at"], row["path"])


_BY_KEY = f"SELECT {COLUMNS}, source_sha256 FROM files f WHERE quota_key = $1 AND upload_key = $2 AND {KEPT}"


async def find_by_key(c: Connection, caller: Caller, key: str | None, source_sha256: str) -> StoredFile | None:
    """Returns the file that the same request stored before. Raises IdempotencyKeyReused if it had other bytes."""
    row = await c.fetchrow(_BY_KEY, caller.quota_key, key) if key is not None else None
    if row is not None and row["source_sha256"] != source_sha256:
        raise IdempotencyKeyReused
    return None if row is None else parse_file(row)


_TAKEN = (
    f"SELECT count(*) AS files, coalesce(sum(size), 0)::bigint AS bytes FROM files f WHERE quota_key = $1 AND {KEPT}"
)


async def require_room(c: Connection, quota_key: str, size: int, *, files: int, total: int) -> None:
    """Raises TooManyFiles if a file of `size` bytes would exceed a caller's `files` or the `total` of their bytes."""
    [taken] = await c.fetch(_TAKEN, quota_key)
    if taken["files"] >= files or taken["bytes"] + size > total:
        raise TooManyFiles


_LOCK = "SELECT pg_advisory_xact_lock($1, hashtext($2))"


async def lock_files(c: Connection, quota_key: str) -> None:
    """Waits until no other transaction counts or adds files of this caller."""
    await c.execute(_LOCK, _LOCKS, quota_key)


_FREE_KEY = """
UPDATE files f SET upload_key = NULL WHERE quota_key = $1 AND upload_key = $2 AND expires_at <= now()"""
_INSERT = f"""
INSERT INTO files AS f (id, user_id, quota_key, media_type, filename, size, pages, sha256, source_sha256, link_key,
  upload_key, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now() + make_interval(secs => $12)) RETURNING {COLUMNS}"""


async def insert_file(c: Connection, caller: Caller, new: NewFile, *, files: int, total: int) -> StoredFile:
    """Writes the row of a file, or returns the one that the same request has written meanwhile.

    Raises TooManyFiles, IdempotencyKeyReused. Requires a transaction.
    """
    await lock_files(c, caller.quota_key)
    if (known := await find_by_key(c, caller, new.key, new.source_sha256)) is not None:
        return known
    await require_room(c, caller.quota_key, new.size, files=files, total=total)
    await c.execute(_FREE_KEY, caller.quota_key, new.key)
    about = (new.media_type, new.filename, new.size, new.pages, new.sha256, new.source_sha256, new.link_key, new.key)
    [row] = await c.fetch(_INSERT, new.id, caller.user_id, caller.quota_key, *about, UNUSED_FOR)
    return parse_file(row)


_MINE = f"""{KEPT} AND (f.user_id IS NULL OR f.user_id = $2)
  AND (f.session_id IS NULL OR EXISTS (
    SELECT 1 FROM sessions s WHERE s.id = f.session_id AND (s.user_id IS NULL OR s.user_id = $2)))"""
_FIND = f"SELECT {COLUMNS} FROM files f WHERE f.id = ANY($1::text[]) AND {_MINE}"


async def get_files(c: Connection, caller: Caller, ids: Sequence[FileId]) -> list[StoredFile]:
    """Returns these files in this order. Raises FileNotFound if the caller may not read one of them."""
    found = {row["id"]: parse_file(row) for row in await c.fetch(_FIND, list(ids), caller.user_id)}
    if not found.keys() >= set(ids):
        raise FileNotFound
    return [found[id] for id in ids]


_SHARED = f"""
SELECT {COLUMNS} FROM files f WHERE f.id = $1 AND {KEPT}
  AND (f.session_id IS NULL OR EXISTS (SELECT 1 FROM sessions s WHERE s.id = f.session_id))"""


async def get_linked_file(c: Connection, id: FileId) -> StoredFile:
    """Returns any user's file, for a request whose link is then checked. Raises FileNotFound."""
    row = await c.fetchrow(_SHARED, id)
    if row is None:
        raise FileNotFound
    return parse_file(row)


_ATTACH = f"""
UPDATE files f SET session_id = $3, expires_at = NULL
WHERE f.id = ANY($1::text[]) AND (f.session_id IS NULL OR f.session_id = $3) AND f.path IS NULL AND {_MINE}
RETURNING f.id"""


async def attach_files(c: Connection, caller: Caller, session_id: SessionId, ids: Sequence[FileId]) -> set[FileId]:
    """Gives files to a conversation, whose row the caller has locked. Returns the ids of those that it now uses.

    Files that another conversation uses, and those that the caller may not read, stay as they are.
    """
    return {FileId(row["id"]) for row in await c.fetch(_ATTACH, list(ids), caller.user_id, session_id)}


_WHOSE = """
SELECT t.user_id, t.quota_key FROM tasks t JOIN sessions s ON s.id = t.session_id
WHERE t.id = $1 FOR NO KEY UPDATE OF s"""


async def keep_output(
    c: Connection, task_id: TaskId, session_id: SessionId, new: NewFile, *, files: int, total: int
) -> StoredFile:
    """Writes the row of a file that a tool has made in a task, as the conversation's and its user's.

    Returns the file that the conversation has, if it has one with the same key. Raises FileNotFound if the conversation
    is deleted, and TooManyFiles. Requires a transaction.
    """
    row = await c.fetchrow(_WHOSE, task_id)
    if row is None:
        raise FileNotFound
    anonymous = str(row["quota_key"]).removeprefix("addr:")
    caller = Caller(row["user_id"], anonymous)
    stored = await insert_file(c, caller, new, files=files, total=total)
    if stored.id not in await attach_files(c, caller, session_id, [stored.id]):
        raise FileNotFound
    return stored


_DELETE = f"UPDATE files f SET expires_at = now(), path = NULL WHERE f.id = $1 AND {_MINE} RETURNING 1"


async def delete_file(c: Connection, caller: Caller, id: FileId) -> None:
    """Makes a file unreadable from now on; a sweep deletes it. Raises FileNotFound."""
    if await c.fetchval(_DELETE, id, caller.user_id) is None:
        raise FileNotFound


_LINK_KEYS = f"SELECT f.id, f.link_key FROM files f WHERE f.id = ANY($1::text[]) AND f.session_id = $2 AND {KEPT}"


async def link_keys(c: Connection, session_id: SessionId, ids: Sequence[FileId]) -> dict[FileId, str]:
    """Returns the keys of those files that exist in this conversation, which the caller may read."""
    return {FileId(row["id"]): row["link_key"] for row in await c.fetch(_LINK_KEYS, list(ids), session_id)}


_OF_SESSION = "UPDATE files SET expires_at = now() WHERE session_id = $1"
_OF_USER = "UPDATE files SET expires_at = now() WHERE user_id = $1"
_ASSIGN = """
UPDATE files SET user_id = $2, quota_key = 'user:' || $2, upload_key = NULL
WHERE session_id = $1 AND user_id IS NULL"""


async def expire_files_of_session(c: Connection, session_id: SessionId) -> None:
    """Makes the files of a conversation unreadable, in the transaction that deletes it. A sweep deletes them."""
    await c.execute(_OF_SESSION, session_id)


async def expire_files_of_user(c: Connection, user_id: UserId) -> None:
    await c.execute(_OF_USER, user_id)


async def assign_files(c: Connection, session_id: SessionId, user_id: UserId) -> None:
    """Gives the anonymous files of a conversation to a user."""
    await c.execute(_ASSIGN, session_id, user_id)


_EXPIRED = "SELECT id FROM files WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED"
"""A locked row is a file that a message takes at this moment."""
_FORGET = "DELETE FROM files WHERE id = ANY($1::text[]) AND expires_at <= now()"
_KNOWN = "SELECT id FROM files WHERE id = ANY($1::text[])"


async def expired_files(c: Connection, limit: int) -> list[FileId]:
    """Returns files that nobody may read any longer."""
    return [FileId(row["id"]) for row in await c.fetch(_EXPIRED, limit)]


async def forget_files(c: Connection, ids: Sequence[FileId]) -> None:
    """Deletes the rows of expired files whose objects are deleted."""
    await c.execute(_FORGET, list(ids))


async def without_row(c: Connection, ids: Sequence[FileId]) -> list[FileId]:
    """Returns those of these objects' ids that no row has."""
    known = {row["id"] for row in await c.fetch(_KNOWN, list(ids))}
    return [id for id in ids if id not in known]
