"""Side job for turns that the queue gave up on: fails their tasks, so that the users get an error."""

from __future__ import annotations

import asyncio
import logging

from backend.chat.models import TaskError
from backend.chat.queue.turn_queue import DeadTurn
from backend.chat.resources import Resources
from backend.errors import AttemptEnded, Unavailable
from backend.jitter import jitter
from backend.logs import bound
from executor.turns.context import ExecutorContext
from executor.turns.runner import TurnRunner

RETRY_PAUSE = 2.0
"""Seconds (on average) between two tries to fail a task."""
UNDELIVERABLE = TaskError("undeliverable", "This message could not be processed; please try again.")
logger = logging.getLogger(__name__)


async def fail_dead_turns(resources: Resources, context: ExecutorContext, runner: TurnRunner) -> None:
    """Fails the task of each dead letter. Runs until cancelled.

    A letter is acked when its task has ended, or when a living executor owns the task.
    """
    async with resources.turn_queue.dead_turns() as letters:
        async for letter in letters:
            with bound(task_id=letter.task_id):
                logger.error("dead letter", extra={"reason": letter.reason})
                context.metrics.count_dead_letter(letter.reason)
                await _fail(letter, runner)
                await letter.ack()


async def _fail(letter: DeadTurn, runner: TurnRunner) -> None:
    """Fails the letter's task. Retries until the stores are available."""
    while True:
        try:
            return await runner.fail(letter.task_id, UNDELIVERABLE)
        except (Unavailable, AttemptEnded) as error:
            logger.warning("dead letter waits", extra={"error": type(error).__name__})
        await asyncio.sleep(jitter(RETRY_PAUSE, 0.5, 1.5))
