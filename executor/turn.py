"""What an executor does with one turn that the queue hands it."""

from __future__ import annotations

import logging

from backend.chat import tasks
from backend.chat.flows import House
from backend.chat.models import Task, Turn
from backend.chat.snapshot import terminal_chunks
from backend.errors import AttemptEnded, Fenced, StreamGone, TaskNotFound
from backend.ids import TaskId
from executor.attempt import Attempt, HandedBack
from executor.crew import Crew
from executor.ownership import claim, session_lock
from executor.takeover import ensure_terminal

MAX_RESTARTS = 5
logger = logging.getLogger(__name__)


class Turns:
    """Runs turns; `running` are the attempts under way in this process."""

    def __init__(self, house: House, crew: Crew) -> None:
        self._house = house
        self._crew = crew
        self.running: dict[TaskId, Attempt] = {}

    async def run(self, turn: Turn) -> None:
        """Does what the turn needs, whatever state its task is in; on return the turn may be acked.

        Raises AttemptEnded or Unavailable when the turn must come again, here or elsewhere.
        """
        async with self._house.database.connection() as c:
            claimed = await tasks.claim_new_task(c, turn.task_id, self._house.me)
        if claimed is None:
            claimed = await self._look(turn)
        if claimed is not None:
            await self._work(claimed)

    async def _look(self, turn: Turn) -> Task | None:
        """A turn that came before, or for nothing: claims it if that can be done."""
        try:
            async with self._house.database.connection() as c:
                task = await tasks.get_task(c, turn.task_id)
        except TaskNotFound:
            logger.warning("turn of an unknown task")
            return None
        if task.status.ended:
            await self._end_again(task)
            return None
        return await claim(self._house, task) if task.id not in self.running else None

    async def _work(self, claimed: Task) -> None:
        """One attempt, and another one each time Redis loses the stream under it."""
        for _ in range(MAX_RESTARTS):
            try:
                return await self._attempt(claimed)
            except Fenced:
                return logger.warning("turn is another executor's by now", extra={"attempt": claimed.attempt})
            except StreamGone:
                logger.warning("stream lost, the turn starts again", extra={"attempt": claimed.attempt})
            async with self._house.database.connection() as c:
                again = await tasks.claim_task(
                    c, claimed.id, self._house.me, seen_owner=self._house.me, seen_attempt=claimed.attempt
                )
            if again is None:
                return None
            claimed = again
        raise HandedBack

    async def _attempt(self, claimed: Task) -> None:
        attempt = self.running[claimed.id] = Attempt(self._house, self._crew, claimed)
        logger.info("turn runs", extra={"attempt": claimed.attempt})
        try:
            async with session_lock(self._house, claimed):
                ending = await attempt.run()
        finally:
            del self.running[claimed.id]
        logger.info("turn ended", extra={"status": ending.task.status.value})
        if ending.next_turn is not None:
            await self._house.outbox.publish(ending.next_turn)

    async def _end_again(self, task: Task) -> None:
        """A turn that came again after its end: its stream's end and the next turn may not have been written."""
        chunks = terminal_chunks(task, step_open=False)
        try:
            await ensure_terminal(self._house.streams, self._house.flusher, task, chunks)
        except AttemptEnded as lost:  # readers take the end from the row
            logger.warning("terminal chunks not written", extra={"why": type(lost).__name__})
        async with self._house.database.connection() as c:
            active = await tasks.find_active_task(c, task.session_id)
        if active is not None and not active.status.ended and active.owner is None:
            await self._house.outbox.publish(Turn(active.id, active.session_id))

    async def let_go(self, task_id: TaskId) -> None:
        """Gives up this process's claim on a task that does not run here (any more); no crash is counted."""
        async with self._house.database.connection() as c:
            task = await tasks.get_task(c, task_id)
            if task.owner == self._house.me and task_id not in self.running:
                await tasks.release_claim(c, task)
