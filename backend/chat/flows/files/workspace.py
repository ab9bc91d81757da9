"""Writes files into the workspace of a conversation: the objects first, then their rows, as for files of messages."""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

from backend.chat.store.attachments import workspaces
from backend.chat.store.attachments.files import NewFile
from backend.config import Settings
from backend.errors import FileTooLarge, InvalidPath, SessionNotFound, TooManyFiles, Unavailable, UnsupportedFile
from backend.files.kinds import BINARY, UNREAD_OFFICE, Kind, kind_of, media_type_of, office_type_of_name, require_text
from backend.files.storage import FileStorage
from backend.ids import FileId, SessionId, new_file_id
from backend.postgres import Database

MAX_FILE = 20_971_520
"""Bytes of a file that a tool or a client writes."""
AT_ONCE = 8
"""Objects that are stored at the same time."""


class Workspace:
    """The workspaces of all conversations, for a process that has checked who calls."""

    def __init__(self, settings: Settings, database: Database, storage: FileStorage) -> None:
        self._settings = settings
        self._database = database
        self._storage = storage

    async def list(self, session_id: SessionId) -> list[workspaces.WorkspaceFile]:
        """Returns the files in the order of their paths."""
        async with self._database.connection() as c:
            return await workspaces.list_files(c, session_id)

    async def find(self, session_id: SessionId, path: str) -> workspaces.WorkspaceFile:
        """Raises InvalidPath, FileNotFound."""
        async with self._database.connection() as c:
            return await workspaces.find_file(c, session_id, path)

    async def read(self, file: workspaces.WorkspaceFile) -> bytes:
        """Returns the bytes of a file. Raises ObjectGone, Unavailable."""
        return await self._storage.get(file.id)

    async def write(
        self, session_id: SessionId, given: Mapping[str, bytes], gone: Sequence[str] = ()
    ) -> dict[str, FileId]:
        """Writes or replaces files, and deletes those at the paths in `gone`: all of it, or nothing.

        Returns the id of each written file. Raises InvalidPath, FileTooLarge, TooManyFiles, SessionNotFound and
        Unavailable.
        """
        new = [(path, await asyncio.to_thread(_described, path, data)) for path, data in given.items()]
        for start in range(0, len(new), AT_ONCE):
            some = new[start : start + AT_ONCE]
            await _all(self._storage.put(file.id, io.BytesIO(given[path])) for path, file in some)
        limits = {"files": self._settings.max_files, "total": self._settings.max_files_bytes}
        try:
            async with self._database.transaction() as c:
                await workspaces.write_files(c, session_id, new, gone, **limits)
        except (InvalidPath, TooManyFiles, SessionNotFound):
            with suppress(Unavailable):  # then a sweep deletes them, as it does whenever the rows are missing
                await _all(self._storage.delete(file.id) for _, file in new)
            raise
        return {path: file.id for path, file in new}

    async def delete(self, session_id: SessionId, path: str) -> None:
        """Raises InvalidPath, FileNotFound."""
        async with self._database.transaction() as c:
            await workspaces.delete_file(c, session_id, path)


def _described(path: str, data: bytes) -> NewFile:
    """Raises InvalidPath, FileTooLarge."""
    name = PurePosixPath(workspaces.checked_path(path)).name
    if len(data) > MAX_FILE:
        raise FileTooLarge(f"{path}: the file has {len(data)} bytes; the limit is {MAX_FILE}.")
    digest = hashlib.sha256(data).hexdigest()
    about = (_type_of(data, name), name, len(data), 0, digest, digest, secrets.token_hex(32), None)
    return NewFile(new_file_id(), *about)


def _type_of(data: bytes, name: str) -> str:
    try:
        media_type = media_type_of(data[:4_096], name)
        if kind_of(media_type) is Kind.TEXT:
            require_text(io.BytesIO(data))
    except UnsupportedFile:
        return BINARY
    return office_type_of_name(name) if media_type == UNREAD_OFFICE else media_type


async def _all(working: Iterable[Awaitable[None]]) -> None:
    """Waits for all of them, and raises the first error."""
    for result in await asyncio.gather(*working, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
