"""Files in the workspace of a conversation: those that tools have written, by their paths, and those of messages.

Files of messages are in the folder `attachments`, under their names, and cannot be changed there. Who may use the
conversation may use its workspace; the caller checks that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from backend.chat.store.attachments.files import (
    COLUMNS,
    KEPT,
    NewFile,
    StoredFile,
    lock_files,
    parse_file,
    require_room,
)
from backend.errors import FileNotFound, InvalidPath, SessionNotFound, TooManyFiles
from backend.ids import FileId, SessionId
from backend.postgres import Connection

ATTACHMENTS = "attachments"
MAX_PATH, MAX_DEPTH = 200, 8
"""Characters of a path, and its folders with the name."""
_MAX_NAME_BYTES = 255
"""Bytes of one name: Linux refuses longer ones, so a sandbox could not unpack them."""
MAX_WORKSPACE_FILES, MAX_WORKSPACE_BYTES = 200, 67_108_864
"""Files of a workspace and their bytes, without those of messages."""
_ROOT = re.compile(r"^(?:/workspace(?=/|$)|\.(?=/|$))?/*")
_SEGMENT = re.compile(r"[^\x00-\x1f\x7f/\\]{1,100}")


@dataclass(frozen=True, slots=True)
class WorkspaceFile:
    """A file and its path."""

    path: str
    stored: StoredFile

    @property
    def written(self) -> bool:
        """False for a file of a message."""
        return self.stored.path is not None

    @property
    def id(self) -> FileId:
        return self.stored.id

    @property
    def size(self) -> int:
        return self.stored.part.size


def relative_path(given: str) -> str:
    """Returns a path without the `/workspace/`, `/` or `./` that may precede it."""
    return _ROOT.sub("", given.strip(), count=1)


def checked_path(given: str) -> str:
    """Returns a path in the form in which it is stored, such as `reports/may.csv`; `/workspace/` may precede it.

    Raises InvalidPath.
    """
    path = relative_path(given)
    segments = path.split("/")
    if (
        not 0 < len(path) <= MAX_PATH
        or len(segments) > MAX_DEPTH
        or any("\ud800" <= character <= "\udfff" for character in path)
        or not all(_is_name(one) for one in segments)
    ):
        raise InvalidPath
    return path


def _is_name(text: str) -> bool:
    fits = _SEGMENT.fullmatch(text) is not None and len(text.encode()) <= _MAX_NAME_BYTES
    return fits and text not in (".", "..") and text == text.strip()


def _written_path(given: str) -> str:
    """Returns the checked path of a file that may be written. Raises InvalidPath."""
    path = checked_path(given)
    if path.partition("/")[0] == ATTACHMENTS:
        raise InvalidPath(f"Files in {ATTACHMENTS}/ came with messages and cannot be changed. Choose another path.")
    return path


_ALL = f"""
SELECT {COLUMNS} FROM files f WHERE f.session_id = $1 AND {KEPT} ORDER BY f.created_at, f.id LIMIT 5000"""


async def list_files(c: Connection, session_id: SessionId) -> list[WorkspaceFile]:
    """Returns the files of a workspace in the order of their paths."""
    found: dict[str, WorkspaceFile] = {}
    for row in await c.fetch(_ALL, session_id):
        stored = parse_file(row)
        path = stored.path or _free_path(stored.part.filename, found.keys())
        found[path] = WorkspaceFile(path, stored)
    return [found[path] for path in sorted(found)]


def _free_path(filename: str, taken: Collection[str]) -> str:
    """Returns a path for a file of a message: its name, with a number if others have that name."""
    name = "".join(one if _SEGMENT.fullmatch(one) else "_" for one in filename)
    name = _end_of(name, 100, _MAX_NAME_BYTES) or "file"
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix[:15].rstrip()
    number, path = 1, f"{ATTACHMENTS}/{name}"
    while path in taken:
        number += 1
        path = f"{ATTACHMENTS}/{_end_of(stem, 75, _MAX_NAME_BYTES - 70)} ({number}){suffix}"
    return path


def _end_of(text: str, characters: int, size: int) -> str:
    """Returns the end of a text, of at most so many characters and bytes, without space and dots around it."""
    cut = text[-characters:].encode("utf-8", "replace")[-size:].decode("utf-8", "ignore")
    while cut != (stripped := cut.strip().strip(".")):
        cut = stripped
    return cut


async def find_file(c: Connection, session_id: SessionId, path: str) -> WorkspaceFile:
    """Returns the file at a path. Raises InvalidPath, FileNotFound."""
    wanted = checked_path(path)
    for file in await list_files(c, session_id):
        if file.path == wanted:
            return file
    raise FileNotFound


_SESSION = "SELECT user_id FROM sessions WHERE id = $1 FOR KEY SHARE"
_REPLACE = """
UPDATE files SET path = NULL, expires_at = now() WHERE session_id = $1 AND path = ANY($2::text[]) RETURNING size"""
_NEIGHBOURS = """
SELECT 1 FROM files WHERE session_id = $1 AND (path = ANY($2::text[]) OR starts_with(path, $3)) LIMIT 1"""
_SIZES = """
SELECT count(*) AS files, coalesce(sum(size), 0)::bigint AS bytes FROM files
WHERE session_id = $1 AND path IS NOT NULL"""
_INSERT = """
INSERT INTO files (id, user_id, quota_key, session_id, path, media_type, filename, size, pages, sha256, source_sha256,
  link_key)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $9, $10)"""


async def write_files(
    c: Connection,
    session_id: SessionId,
    new: Sequence[tuple[str, NewFile]],
    gone: Sequence[str],
    *,
    files: int,
    total: int,
) -> None:
    """Writes and replaces files at their paths, whose objects are stored, and deletes those at the paths in `gone`.

    `files` and `total` limit the number of files, and their bytes together, of the conversation's user. If it has no
    user, they limit those of the conversation. Raises InvalidPath, SessionNotFound, TooManyFiles. Requires a
    transaction.
    """
    paths = [_written_path(path) for path, _ in new]
    row = await c.fetchrow(_SESSION, session_id)
    if row is None:
        raise SessionNotFound
    quota_key = f"user:{row['user_id']}" if row["user_id"] is not None else f"session:{session_id}"
    await lock_files(c, quota_key)
    await c.fetch(_REPLACE, session_id, [*paths, *(_written_path(path) for path in gone)])
    for path, (_, file) in zip(paths, new, strict=True):
        folders = [str(folder) for folder in PurePosixPath(path).parents][:-1]
        if await c.fetchval(_NEIGHBOURS, session_id, folders, f"{path}/"):
            raise InvalidPath(f"{path}: a file and a folder cannot have the same path.")
        await require_room(c, quota_key, file.size, files=files, total=total)
        await c.execute(
            _INSERT,
            file.id,
            row["user_id"],
            quota_key,
            session_id,
            path,
            file.media_type,
            file.filename,
            file.size,
            file.sha256,
            file.link_key,
        )
    [taken] = await c.fetch(_SIZES, session_id)
    if taken["files"] > MAX_WORKSPACE_FILES or taken["bytes"] > MAX_WORKSPACE_BYTES:
        raise TooManyFiles(
            f"A workspace may have {MAX_WORKSPACE_FILES} files of {MAX_WORKSPACE_BYTES >> 20} MiB together."
        )


async def delete_file(c: Connection, session_id: SessionId, path: str) -> None:
    """Deletes the file at a path; a sweep deletes its object. Raises InvalidPath, FileNotFound."""
    if not await c.fetch(_REPLACE, session_id, [_written_path(path)]):
        raise FileNotFound
