"""The outbox: publishes accepted turns, which are in Postgres, and notes there that it did.

The note only saves the sweeper work. So notes are written every half second, for all turns together, and only for turns
that no executor has taken by then, which are few. A note that is late is not written: an executor may have taken the
turn and died since, and the turn would count as published although the queue no longer has it.

A turn that could not be published may count as published from before: an executor had it in hand, and hands it back
while it cannot reach the queue. So that is noted too, however late, and the sweeper publishes the turn seconds later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from types import TracebackType
from typing import Self

from backend.chat.models import Turn
from backend.chat.queue.turn_queue import TurnQueue
from backend.chat.store import tasks
from backend.errors import Unavailable
from backend.failpoints import reach
from backend.ids import TaskId
from backend.logs import Trouble, why_away
from backend.postgres import Database
from backend.supervised import start_supervised

NOTE_EVERY = 0.5
"""Seconds between two writes of notes."""
NOTE_WITHIN = 1.5
"""Seconds after which a note is late. An executor that has just taken a turn is found dead only after a longer time."""
MAX_NOTES = 10_000
"""Notes that wait to be written."""
logger = logging.getLogger(__name__)


class Outbox:
    """Publishes turns. `async with` it for the life of the process."""

    def __init__(self, turns: TurnQueue, database: Database) -> None:
        self._turns = turns
        self._database = database
        self._published: list[tuple[TaskId, float]] = []
        self._failed: list[TaskId] = []
        self._noting: asyncio.Task[None] | None = None
        self._trouble = Trouble(logger, "turns are not published; the sweeper will do it")

    async def __aenter__(self) -> Self:
        self._noting = start_supervised(self._write_notes, "outbox")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._noting is not None:
            self._noting.cancel()
            await asyncio.gather(self._noting, return_exceptions=True)
        with contextlib.suppress(Unavailable):
            await self._note()

    async def publish(self, turn: Turn) -> None:
        """Puts a turn on the queue. If the queue is unavailable, the sweeper does it seconds later."""
        if not await self.try_publish(turn) and len(self._failed) < MAX_NOTES:
            self._failed.append(turn.task_id)

    async def try_publish(self, turn: Turn) -> bool:
        """Puts a turn on the queue. Returns False if the queue is unavailable."""
        began = time.monotonic()
        try:
            await self._turns.publish(turn)
        except Unavailable as error:
            self._trouble.met(self._turns.trouble or why_away(error.__cause__ or error))
            return False
        self._trouble.over()
        reach("after_publish_before_mark")
        if len(self._published) < MAX_NOTES:
            self._published.append((turn.task_id, began))
        return True

    async def _write_notes(self) -> None:
        while True:
            await asyncio.sleep(NOTE_EVERY)
            try:
                await self._note()
            except Unavailable as error:
                logger.warning("published turns were not noted", extra={"error": str(error)})

    async def _note(self) -> None:
        if not self._published and not self._failed:
            return
        published, self._published = self._published, []
        failed, self._failed = self._failed, []
        try:
            async with self._database.connection() as c:
                oldest = time.monotonic() - NOTE_WITHIN
                await tasks.mark_published(c, [task_id for task_id, at in published if at >= oldest])
                if failed:
                    await tasks.mark_unpublished(c, failed)
        except Unavailable:
            self._failed = [*failed, *self._failed][:MAX_NOTES]
            raise
