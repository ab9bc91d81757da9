"""The commits of one attempt: each is stored once, also when Postgres went away in the middle of one."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence

from backend.chat import tasks
from backend.chat.flows import House, append_said, end_task
from backend.chat.models import Ending, NewMessage, Task, TaskError, TaskStatus, Usage
from backend.errors import Fenced, Unavailable
from backend.ids import StreamId

PATIENCE = 60.0
logger = logging.getLogger(__name__)


class Commits:
    """`task` is the claim of the attempt. Each method raises Fenced, or Unavailable after a minute of trying."""

    def __init__(self, house: House, task: Task) -> None:
        self._house = house
        self._task = task
        self.step = task.steps

    async def commit_step(self, said: Sequence[NewMessage], checkpoint: StreamId, usage: Usage) -> None:
        """Stores a step's messages and the id of its last chunk, in one transaction that checks the attempt."""
        step = self.step + 1
        async for retried in _tries():
            try:
                async with self._house.database.transaction() as c:
                    # the session's row is locked first, as in every flow
                    await append_said(c, self._task, step, said)
                    await tasks.commit_step(c, self._task, step=step, checkpoint=checkpoint, usage=usage)
                break
            except Unavailable:
                continue
            except Fenced:
                if retried and (await self._as_stored()).steps == step:
                    break
                raise
        self.step = step

    async def end(
        self,
        status: TaskStatus,
        error: TaskError | None,
        said: Sequence[NewMessage],
        checkpoint: StreamId,
        usage: Usage,
    ) -> Ending:
        """Ends the task with what was said last, and the id of its last chunk."""
        async for retried in _tries():
            try:
                return await end_task(
                    self._house,
                    self._task,
                    status=status,
                    error=error,
                    step=self.step + 1,
                    said=said,
                    usage=usage,
                    checkpoint=checkpoint,
                )
            except Unavailable:
                continue
            except Fenced:
                stored = await self._as_stored() if retried else self._task
                if not stored.status.ended:
                    raise
                return Ending(stored, None)  # the sweeper publishes the turn that became active with it
        raise Unavailable

    async def _as_stored(self) -> Task:
        """The task's row, if this attempt is still the one that stands; else raises Fenced."""
        async with self._house.database.connection() as c:
            task = await tasks.get_task(c, self._task.id)
        if task.attempt != self._task.attempt:
            raise Fenced
        return task


async def _tries() -> AsyncIterator[bool]:
    """Yields whether this is a retry; waits longer before each, and raises Unavailable when patience is over."""
    yield False
    waited, pause = 0.0, 0.1
    while waited < PATIENCE:
        logger.warning("postgres is away, the commit waits", extra={"waited": waited})
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
        waited, pause = waited + pause, min(2.0, pause * 2)
        yield True
    raise Unavailable
