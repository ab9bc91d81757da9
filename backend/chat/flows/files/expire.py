"""Deletes files that nobody may read any longer, and objects that no row names."""

from __future__ import annotations

import asyncio

from backend.chat.resources import Resources
from backend.chat.store.attachments import files
from backend.errors import Unavailable
from backend.ids import FileId

AT_ONCE = 16
"""Objects that are deleted at the same time."""


async def delete_expired_files(resources: Resources, limit: int) -> int:
    """Deletes up to `limit` expired files: the objects first, so that a row stays until its object is deleted.

    Returns their number. Raises Unavailable if some could not be deleted; others are not held up by them, unless all
    those that are tried at a time fail.
    """
    async with resources.database.connection() as c:
        expired = await files.expired_files(c, limit)
    failed = False
    for start in range(0, len(expired), AT_ONCE):
        some = expired[start : start + AT_ONCE]
        results = await asyncio.gather(*map(resources.files.delete, some), return_exceptions=True)
        gone = [id for id, result in zip(some, results, strict=True) if result is None]
        async with resources.database.connection() as c:
            await files.forget_files(c, gone)
        failed = failed or len(gone) < len(some)
        if not gone:
            break
    if failed:
        raise Unavailable
    return len(expired)


async def delete_orphans(resources: Resources, *, older_than: float, after: FileId | None = None) -> FileId | None:
    """Deletes some objects that have no row, and were stored `older_than` seconds ago: their upload has ended.

    Looks at a page of objects after the one named `after`. Returns the last one of them, or None at the end.
    Raises Unavailable.
    """
    page = await resources.files.page(after)
    old = [id for id, age in page if age >= older_than]
    async with resources.database.connection() as c:
        orphans = await files.without_row(c, old)
    for start in range(0, len(orphans), AT_ONCE):
        await asyncio.gather(*map(resources.files.delete, orphans[start : start + AT_ONCE]))
    return max((id for id, _ in page), default=None)
