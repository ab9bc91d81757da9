"""Files that tools answer with: they are kept as files of the conversation, so that models and users see them."""

from __future__ import annotations

import hashlib
from contextlib import closing

from backend.chat.flows.files.store import store_file
from backend.chat.models import FilePart
from backend.chat.resources import Resources
from backend.chat.store.attachments import files
from backend.chat.store.attachments.files import NewFile, StoredFile
from backend.files.upload import Upload
from backend.ids import SessionId, TaskId


class OutputFiles:
    """Keeps the files of one task's tool calls. The same bytes are kept once in a conversation."""

    def __init__(self, resources: Resources, session_id: SessionId, task_id: TaskId) -> None:
        self._resources = resources
        self._session_id = session_id
        self._task_id = task_id

    async def keep(self, data: bytes, filename: str) -> FilePart:
        """Stores a picture, a PDF, a sound or a text. Its content tells which it is.

        Raises an AppError if it is none, is too large or unreadable, or if there is no room for it.
        """
        settings = self._resources.settings
        with closing(Upload(settings, filename, audio=True)) as upload:
            upload.write(data)
            upload.finish()
            key = hashlib.sha256(f"{self._session_id} {upload.sha256}".encode()).hexdigest()
            return (await store_file(self._resources, upload, key, self._insert)).part

    async def _insert(self, new: NewFile) -> StoredFile:
        settings = self._resources.settings
        async with self._resources.database.transaction() as c:
            return await files.keep_output(
                c,
                self._task_id,
                self._session_id,
                new,
                files=settings.max_files,
                total=settings.max_files_bytes,
            )
