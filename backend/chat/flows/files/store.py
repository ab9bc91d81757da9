"""Storing a file: the object first, and then the row, so that a row has its object.

If the process dies between the two, or the reply to the commit is lost, a sweep finds the object without a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from typing import IO, NamedTuple

from backend.chat.resources import Resources
from backend.chat.store.attachments.files import NewFile, StoredFile
from backend.errors import IdempotencyKeyReused, TooManyFiles, Unavailable
from backend.files.kinds import Kind, require_text
from backend.files.upload import Upload
from backend.ids import FileId, new_file_id

_PIECE = 1 << 20


class _Content(NamedTuple):
    """A file as it is stored: its bytes, its media type and, if it is a PDF, its number of pages."""

    file: IO[bytes]
    media_type: str
    pages: int


async def store_file(
    resources: Resources, upload: Upload, key: str | None, insert: Callable[[NewFile], Awaitable[StoredFile]]
) -> StoredFile:
    """Stores the object of a file, and has `insert` write its row, or return that of the same request.

    Raises what `insert` does, and PictureTooLarge, UnreadableFile, UnsupportedFile, ServerBusy, Unavailable.
    """
    with tempfile.TemporaryFile() as out:
        content = await _read(resources, upload, out)
        size, digest = await asyncio.to_thread(_measure, content.file)
        id = new_file_id()
        await resources.files.put(id, content.file)
    about = (upload.filename, size, content.pages, digest, upload.sha256, secrets.token_hex(32), key)
    try:
        stored = await insert(NewFile(id, content.media_type, *about))
    except (TooManyFiles, IdempotencyKeyReused):
        await _delete(resources, id)
        raise
    if stored.id != id:  # the same request arrived twice at a time
        await _delete(resources, id)
    return stored


async def _read(resources: Resources, upload: Upload, out: IO[bytes]) -> _Content:
    """Returns what is kept of a file: a picture is written again, to `out`."""
    reader = resources.file_reader
    match upload.kind:
        case Kind.IMAGE:
            return _Content(out, await reader.write_picture(upload.file, out), 0)
        case Kind.PDF:
            return _Content(upload.file, upload.media_type, await reader.count_pages(upload.file, out))
        case Kind.OFFICE:
            return _Content(upload.file, await reader.office_type(upload.file, out), 0)
        case Kind.TEXT | Kind.BINARY:
            await asyncio.to_thread(require_text, upload.file)
            return _Content(upload.file, upload.media_type, 0)
        case Kind.AUDIO:
            return _Content(upload.file, upload.media_type, 0)


def _measure(file: IO[bytes]) -> tuple[int, str]:
    file.seek(0)
    digest, size = hashlib.sha256(), 0
    while piece := file.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


async def _delete(resources: Resources, id: FileId) -> None:
    with contextlib.suppress(Unavailable):  # then a sweep deletes it
        await resources.files.delete(id)
