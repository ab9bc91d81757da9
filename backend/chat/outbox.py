"""Turns on their way to the queue. An accepted turn is in Postgres; here it is published, and that is noted.

The note only spares the sweeper work, so it is written once every half second for all turns together, and only for
those that nobody has taken by then: most need none. One that comes late is not written: the copy of which it speaks may
have been taken by somebody who died since, and the turn would count as published that nobody has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from types import TracebackType
from typing import Self

from backend.chat import tasks
from backend.chat.models import Turn
from backend.chat.turns import TurnQueue
from backend.errors import Unavailable
from backend.failpoints import reach
from backend.ids import TaskId
from backend.postgres import Database
from backend.standing import start_standing

NOTE_EVERY = 0.5
NOTE_WITHIN = 1.5
"""Less than it takes to find an executor dead that has only just taken a turn."""
MAX_NOTES = 10_000
logger = logging.getLogger(__name__)


class Outbox:
    """`async with` it for the life of the process."""

    def __init__(self, turns: TurnQueue, database: Database) -> None:
        self._turns = turns
        self._database = database
        self._published: list[tuple[TaskId, float]] = []
        self._noting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._noting = start_standing(self._note_for_ever, "outbox")
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
        """Hands a turn to the queue. When the queue is away, the sweeper does it later."""
        began = time.monotonic()
        try:
            await self._turns.publish(turn)
        except Unavailable as error:
            logger.warning(
                "turn not published, left to the sweeper", extra={"task_id": turn.task_id, "why": str(error)}
            )
            return
        reach("after_publish_before_mark")
        if len(self._published) < MAX_NOTES:
            self._published.append((turn.task_id, began))

    async def _note_for_ever(self) -> None:
        while True:
            await asyncio.sleep(NOTE_EVERY)
            try:
                await self._note()
            except Unavailable as error:
                logger.warning("published turns not noted", extra={"why": str(error)})

    async def _note(self) -> None:
        if not self._published:
            return
        noted, self._published = self._published, []
        async with self._database.connection() as c:
            oldest = time.monotonic() - NOTE_WITHIN
            await tasks.mark_published(c, [task_id for task_id, at in noted if at >= oldest])
