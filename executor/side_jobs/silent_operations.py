"""Operations of which nothing was heard for a while: their service may have forgotten them, so it is asked again.

The stored order is sent, with the same Idempotency-Key. A service that still works on it accepts it once more and does
nothing else; one that has lost it begins again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from backend.chat.flows.complete import complete_operation
from backend.chat.outcomes import Operation
from backend.chat.resources import Resources
from backend.chat.store import operations
from backend.errors import AlreadyCompleted, OperationGone, OperationNotFound
from backend.ids import TaskId
from executor.generator.answers import Pending
from executor.generator.failures import GeneratorFailure
from executor.generator.outcomes import failed, outcome_of
from executor.generator.work import Work
from executor.turns.context import ExecutorContext

if TYPE_CHECKING:  # an executor without a generator starts faster without it
    from executor.generator.client import Generator

MOST_ASKED = 8
"""Operations for which the service is asked at the same time."""
logger = logging.getLogger(__name__)


class SilentOperations:
    """Asks the generator again, in side jobs of the executor. Does nothing without a generator."""

    def __init__(self, resources: Resources, context: ExecutorContext) -> None:
        self._resources = resources
        self._context = context
        self._asked: set[TaskId] = set()

    async def ask_again(self) -> int:
        """Starts to ask for those operations that have been silent for OPERATION_ASK_AGAIN seconds. Returns how many.

        At most MOST_ASKED requests run at once, and one for each operation. Raises Unavailable.
        """
        silent_for, generator = self._resources.settings.operation_ask_again, self._context.generator
        room = MOST_ASKED - len(self._asked)
        if generator is None or not silent_for or room <= 0:
            return 0
        async with self._resources.database.connection() as c:
            silent = await operations.take_silent_operations(c, silent_for=silent_for, limit=room, besides=self._asked)
        for operation in silent:
            logger.warning("service is asked again for a silent operation", extra={"operation_id": operation.id})
            self._asked.add(operation.task_id)
            job = self._context.start_side_job(self._ask(generator, operation))
            job.add_done_callback(partial(self._forget, operation.task_id))
        return len(silent)

    def _forget(self, task_id: TaskId, job: asyncio.Future[None]) -> None:
        self._asked.discard(task_id)

    async def _ask(self, generator: Generator, operation: Operation) -> None:
        try:
            answer = await generator.send(Work.from_json(operation.work.order), operation.id, operation.task_id)
        except GeneratorFailure as failure:
            if not failure.reported:  # it may still work on what it accepted, and is asked again later
                return
            outcome = failed(failure)
        else:
            if isinstance(answer, Pending):
                return
            outcome = outcome_of(answer)
        with contextlib.suppress(AlreadyCompleted, OperationGone, OperationNotFound):
            done = await complete_operation(self._resources, operation.id, outcome)
            if done.next_turn is not None:
                await self._resources.outbox.publish(done.next_turn)
