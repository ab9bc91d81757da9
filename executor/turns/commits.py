"""The commits of one attempt. Each is stored once, even if Postgres becomes unavailable in the middle of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from backend.chat.flows import steering
from backend.chat.flows.finish import announce_stored_end, append_new_messages, end_task, store_result
from backend.chat.models import (
    AnswerEnd,
    EndedTask,
    Message,
    NewMessage,
    Task,
    TaskError,
    TaskStatus,
    ToolResultPart,
    Usage,
)
from backend.chat.resources import Resources
from backend.chat.store import messages, sessions, tasks
from backend.errors import Fenced, Unavailable
from backend.failpoints import reach
from backend.ids import StreamId
from backend.jitter import jitter
from backend.postgres import Connection

COMMIT_LIMIT = 60.0
"""Seconds for which a commit is retried while Postgres is unavailable."""
logger = logging.getLogger(__name__)


class Commits:
    """The commits of the attempt whose claim is `task`.

    Each method raises Fenced if the claim is lost, and Unavailable after COMMIT_LIMIT seconds without Postgres.
    """

    def __init__(self, resources: Resources, task: Task) -> None:
        self._resources = resources
        self._task = task
        self.step = task.steps

    async def commit_step(
        self,
        new_messages: Sequence[NewMessage],
        checkpoint: StreamId,
        usage: Usage,
        result: ToolResultPart | None = None,
        *,
        takes_in: bool = False,
    ) -> list[Message]:
        """Stores a step's messages and the id of its last chunk, in one transaction that checks the attempt.

        `result` is that of the approved call which the step has run. If it `takes_in` messages, those that wait for
        this task are stored as a step of their own, and returned.
        """
        step = self.step + 1
        async for retried in _tries():
            taken: list[Message] = []
            try:
                async with self._resources.database.transaction() as c:
                    # this locks the session's row first, as every flow does
                    await append_new_messages(c, self._task, step, new_messages)
                    if result is not None:
                        await sessions.lock_session(c, self._task.session_id)
                        await store_result(c, self._task, result)
                    steered = await tasks.commit_step(c, self._task, step=step, checkpoint=checkpoint, usage=usage)
                    if steered and takes_in:
                        taken = await self._take_in(c, step + 1, checkpoint)
                break
            except Unavailable:
                continue
            except Fenced:
                if retried and step <= (stored := (await self._as_stored()).steps) <= step + 1:
                    taken = await self._taken_with(stored) if stored > step else []
                    break
                raise
        self.step = step + 1 if taken else step
        return taken

    async def _take_in(self, c: Connection, step: int, checkpoint: StreamId) -> list[Message]:
        taken = await steering.take_in(c, self._task, step)
        if taken:
            await tasks.commit_step(c, self._task, step=step, checkpoint=checkpoint, usage=Usage())
            reach("before_steer_commit")
        return taken

    async def _taken_with(self, step: int) -> list[Message]:
        async with self._resources.database.connection() as c:
            return await messages.messages_taken_since(c, self._task.id, step)

    async def end(
        self,
        status: TaskStatus,
        error: TaskError | None,
        new_messages: Sequence[NewMessage],
        checkpoint: StreamId,
        usage: Usage,
        answer_end: AnswerEnd | None = None,
        result: ToolResultPart | None = None,
    ) -> EndedTask:
        """Ends the task, and stores its last messages, the id of its last chunk and the result of its approved call."""
        async for retried in _tries():
            try:
                return await end_task(
                    self._resources,
                    self._task,
                    status=status,
                    error=error,
                    step=self.step + 1,
                    said=new_messages,
                    usage=usage,
                    checkpoint=checkpoint,
                    answer_end=answer_end,
                    result=result,
                )
            except Unavailable:
                continue
            except Fenced:
                stored = await self._as_stored() if retried else self._task
                if not stored.status.ended:
                    raise
                return await announce_stored_end(self._resources, stored)
        raise Unavailable  # never reached, since `_tries` raises it; mypy does not know that the loop cannot end

    async def _as_stored(self) -> Task:
        """Returns the task's row. Raises Fenced if a newer attempt has claimed the task."""
        async with self._resources.database.connection() as c:
            task = await tasks.get_task(c, self._task.id)
        if task.attempt != self._task.attempt:
            raise Fenced
        return task


async def _tries() -> AsyncIterator[bool]:
    """Yields before each try whether it is a retry, after a pause that grows. Raises Unavailable after COMMIT_LIMIT."""
    yield False
    waited, pause = 0.0, 0.1
    while waited < COMMIT_LIMIT:
        logger.warning("commit waits for Postgres", extra={"waited": waited})
        await asyncio.sleep(jitter(pause))
        waited, pause = waited + pause, min(2.0, pause * 2)
        yield True
    raise Unavailable
