"""Storing the files that arrive with messages, or before them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Coroutine, Sequence
from typing import Any

from backend.api.deadline import within
from backend.api.state import ApiState
from backend.api.uploads import from_data_url
from backend.api.user_message import GivenFile
from backend.chat.flows.files.store import store_file
from backend.chat.models import Caller, FilePart
from backend.chat.store.attachments import files
from backend.chat.store.attachments.files import NewFile, StoredFile
from backend.files.reading import CHILDREN
from backend.files.upload import Upload
from backend.ids import SessionId


async def store_upload(api: ApiState, caller: Caller, upload: Upload, key: str | None) -> StoredFile:
    """Stores a file that has arrived, or returns the one that the same request has stored.

    Raises TooManyFiles, PictureTooLarge, UnreadableFile, UnsupportedFile, IdempotencyKeyReused, Unavailable.
    """
    resources, seconds = api.resources, api.timeouts.answer_timeout
    if (known := await within(seconds, _known(api, caller, upload, key))) is not None:
        return known
    return await store_file(resources, upload, key, lambda new: within(seconds, _insert(api, caller, new)))


async def _known(api: ApiState, caller: Caller, upload: Upload, key: str | None) -> StoredFile | None:
    """Returns the file that the same request has stored. Raises TooManyFiles if there is no room for another one."""
    settings = api.resources.settings
    async with api.resources.database.connection() as c:
        known = await files.find_by_key(c, caller, key, upload.sha256)
        if known is None:
            await files.require_room(c, caller.quota_key, 0, files=settings.max_files, total=settings.max_files_bytes)
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
