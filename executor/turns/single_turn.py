"""The single turn of a child process, which takes the place of the turn queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from backend.chat.models import Turn
from backend.chat.queue.turn_queue import Delivery
from backend.ids import ExecutorId, SessionId, TaskId


class SingleTurnQueue:
    """A queue of one turn, and that turn's delivery.

    `settled` is set when the process has nothing more to do. `acked` means that the parent process may ack its own
    delivery of the turn. `me` is the executor id of this process.
    """

    def __init__(self, turn: Turn, me: ExecutorId) -> None:
        self.turn = turn
        self.me = me
        self.settled = asyncio.Event()
        self.acked = False

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Parses the command-line arguments that `TurnProcesses` passes. Raises ValueError if their number is wrong."""
        task_id, session_id, me = arguments
        return cls(Turn(TaskId(task_id), SessionId(session_id)), ExecutorId(me))

    async def ack(self) -> None:
        self.acked = True
        self.settled.set()

    async def hand_back(self) -> bool:
        self.settled.set()
        return True

    @asynccontextmanager
    async def consume(self) -> AsyncIterator[AsyncIterator[Delivery]]:
        yield self._once()

    async def _once(self) -> AsyncIterator[Delivery]:
        yield self
        await asyncio.Event().wait()  # a turn queue does not end either; its consumer is cancelled
