"""Side job that deletes files whose time is over, and objects of uploads that were cut short."""

from __future__ import annotations

import asyncio
import logging
import time

from backend.chat.flows.files.expire import delete_expired_files, delete_orphans
from backend.chat.resources import Resources
from backend.errors import Unavailable
from backend.ids import FileId

EXPIRED_EVERY, EXPIRED_BATCH = 30.0, 200
"""Seconds between two deletions of expired files, and the files that each deletes at most."""
ORPHANS_EVERY = 6 * 3600.0
"""Seconds between two searches for objects without a row."""
ORPHANS_AFTER = 86_400.0
"""Seconds after which an object without a row is deleted. No upload takes that long."""
logger = logging.getLogger(__name__)


class FileSweep:
    """Deletes files. The sweeper of this executor wakes it in each of its rounds. One executor sweeps at a time.

    It is a job of its own: if the object storage is unavailable, a sweeper that waits for it would delay turns.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._awake = asyncio.Event()
        self._next_expired = 0.0
        self._next_orphans = time.monotonic() + EXPIRED_EVERY
        self._after: FileId | None = None

    def wake(self) -> None:
        """Has it do what is due."""
        self._awake.set()

    async def run(self) -> None:
        """Deletes whenever it is woken, until cancelled."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            try:
                while await self.sweep():
                    pass
            except Unavailable:  # the storage has logged it
                logger.warning("expired files are deleted later")

    async def sweep(self) -> bool:
        """Deletes what is due. Returns whether there is more to do at once. Raises Unavailable."""
        more = False
        if time.monotonic() >= self._next_expired:
            self._next_expired = time.monotonic() + EXPIRED_EVERY  # set first: if it fails, other work goes on
            deleted = await delete_expired_files(self._resources, EXPIRED_BATCH)
            if deleted:
                logger.info("expired files were deleted", extra={"files": deleted})
            if more := deleted == EXPIRED_BATCH:
                self._next_expired = 0.0
        if time.monotonic() >= self._next_orphans:
            self._next_orphans = time.monotonic() + ORPHANS_EVERY
            self._after = await delete_orphans(self._resources, older_than=ORPHANS_AFTER, after=self._after)
            if self._after is not None:  # the next sweep looks at the next page
                self._next_orphans, more = 0.0, True
        return more
