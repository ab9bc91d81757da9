"""Storing the files of messages: the object first, and then the row, so that a row has its object.

If the process dies between the two, or the reply to the commit is lost, a sweep finds the object without a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import tempfile
from collections.abc import Coroutine, Sequence
from typing import IO, Any, NamedTuple

from backend.api.deadline import within
from backend.api.state import ApiState
from backend.api.uploads import Upload, from_data_url
from backend.api.user_message import GivenFile
from backend.chat.models import Caller, FilePart
from backend.chat.store.attachments import files
from backend.chat.store.attachments.files import NewFile, StoredFile
from backend.errors import IdempotencyKeyReused, TooManyFiles, Unavailable
from backend.files.kinds import Kind, require_text
from backend.files.reading import CHILDREN
from backend.ids import FileId, SessionId, new_file_id

_PIECE = 1 << 20


class _Content(NamedTuple):
    """A file as it is stored: its bytes, its media type and, if it is a PDF, its number of pages."""

    file: IO[bytes]
    media_type: str
    pages: int


async def store_upload(api: ApiState, caller: Caller, upload: Upload, key: str | None) -> StoredFile:
    """Stores a file that has arrived, or returns the one that the same request has stored.

    Raises TooManyFiles, PictureTooLarge, UnreadableFile, UnsupportedFile, IdempotencyKeyReused, Unavailable.
    """
    resources, seconds = api.resources, api.timeouts.answer_timeout
    if (known := await within(seconds, _known(api, caller, upload, key))) is not None:
        return known
    with tempfile.TemporaryFile() as out:
        content = await _read(api, upload, out)
        size, digest = await asyncio.to_thread(_measure, content.file)
        id = new_file_id()
        await resources.files.put(id, content.file)
    about = (upload.filename, size, content.pages, digest, upload.sha256, secrets.token_hex(32), key)
    try:
        stored = await within(seconds, _insert(api, caller, NewFile(id, content.media_type, *about)))
    except (TooManyFiles, IdempotencyKeyReused):
        await _delete(api, id)
        raise
    if stored.id != id:  # the same request arrived twice at a time
        await _delete(api, id)
    return stored


async def _known(api: ApiState, caller: Caller, upload: Upload, key: str | None) -> StoredFile | None:
    """Returns the file that the same request has stored. Raises TooManyFiles if there is no room for another one."""
    settings = api.resources.settings
    async with api.resources.database.connection() as c:
        known = await files.find_by_key(c, caller, key, upload.sha256)
        if known is None:
            await files.require_room(c, caller, 0, files=settings.max_files, total=settings.max_files_bytes)
        return known


async def _insert(api: ApiState, caller: Caller, new: NewFile) -> StoredFile:
    settings = api.resources.settings
    async with api.resources.database.transaction() as c:
        return await files.insert_file(c, caller, new, files=settings.max_files, total=settings.max_files_bytes)


async def files_of(
    api: ApiState, caller: Caller, session_id: SessionId, given: Sequence[GivenFile], message_id: str | None
) -> tuple[FilePart, ...]:
    """Returns the files of a message. Those with a data URL are stored; if the message is sent again, only once.

    Raises FileNotFound if the caller may not read one of them, and the errors of `store_upload`.
    """
    named = [one.id for one in given if one.id is not None]
    async with api.resources.database.connection() as c:
        known = {file.id: file.part for file in await files.get_files(c, caller, named)} if named else {}

    async def part_of(place: int, one: GivenFile) -> FilePart:
        if one.id is not None:
            return known[one.id]
        # in a thread: one that is escaped byte by byte takes most of a second
        decoded = await asyncio.to_thread(from_data_url, api.resources.settings, one.url, one.filename)
        with contextlib.closing(decoded) as upload:
            arriving.take(upload.size)
            key = _key_of(session_id, message_id, place, upload) if message_id is not None else None
            return (await store_upload(api, caller, upload, key)).part

    if len(named) == len(given):
        return tuple(known[id] for id in named)
    parts: list[FilePart] = []
    with api.uploads.one(caller.quota_key) as arriving:
        for start in range(0, len(given), CHILDREN):
            some = enumerate(given[start : start + CHILDREN], start)
            parts += await _all_of([part_of(place, one) for place, one in some])
    return tuple(parts)


async def _all_of(working: Sequence[Coroutine[Any, Any, FilePart]]) -> list[FilePart]:
    """Returns the results. If one fails, raises its error once the others have ended."""
    results = await asyncio.gather(*working, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, FilePart)]


def _key_of(session_id: SessionId, message_id: str, place: int, upload: Upload) -> str:
    return hashlib.sha256(f"{session_id} {message_id} {place} {upload.sha256}".encode()).hexdigest()


async def _read(api: ApiState, upload: Upload, out: IO[bytes]) -> _Content:
    """Returns what is kept of a file: a picture is written again, to `out`."""
    reader = api.resources.file_reader
    match upload.kind:
        case Kind.IMAGE:
            return _Content(out, await reader.write_picture(upload.file, out), 0)
        case Kind.PDF:
            return _Content(upload.file, upload.media_type, await reader.count_pages(upload.file, out))
        case Kind.TEXT:
            await asyncio.to_thread(require_text, upload.file)
            return _Content(upload.file, upload.media_type, 0)


def _measure(file: IO[bytes]) -> tuple[int, str]:
    file.seek(0)
    digest, size = hashlib.sha256(), 0
    while piece := file.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


async def _delete(api: ApiState, id: FileId) -> None:
    with contextlib.suppress(Unavailable):  # then a sweep deletes it
        await api.resources.files.delete(id)
