"""The one turn of a child process, in the place of a turn queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from backend.chat.models import Turn
from backend.chat.turns import Delivery
from backend.ids import ExecutorId, SessionId, TaskId


class LoneTurn:
    """A Delivery. When it is settled, the process has nothing more to do: `settled` is set.

    `dealt_with` says that it was acked, so its parent may ack it; `me` is who this process is.
    """

    redelivered = True

    def __init__(self, turn: Turn, me: ExecutorId) -> None:
        self.turn = turn
        self.me = me
        self.settled = asyncio.Event()
        self.dealt_with = False

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """From the command line that `Children` makes. Raises ValueError for another."""
        task_id, session_id, me = arguments
        return cls(Turn(TaskId(task_id), SessionId(session_id)), ExecutorId(me))

    async def ack(self) -> None:
        self.dealt_with = True
        self.settled.set()

    async def hand_back(self) -> bool:
        self.settled.set()
        return True

    async def refuse(self, reason: str) -> None:
        await self.ack()

    @asynccontextmanager
    async def consume(self) -> AsyncIterator[AsyncIterator[Delivery]]:
        yield self._once()

    async def _once(self) -> AsyncIterator[Delivery]:
        yield self
        await asyncio.Event().wait()  # a turn queue does not end either: who takes from it is cancelled
