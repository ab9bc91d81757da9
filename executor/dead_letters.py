"""What the queue gave up on: the task that a dead letter names is failed, so that its user learns of it."""

from __future__ import annotations

import asyncio
import logging
import random

from backend.chat.flows import House
from backend.chat.models import TaskError
from backend.chat.turns import DeadTurn
from backend.errors import AttemptEnded, Unavailable
from backend.logs import bound
from executor.crew import Crew
from executor.turn import Turns

TRY_AGAIN = 2.0
UNDELIVERABLE = TaskError("undeliverable", "This message could not be worked on; please try again.")
logger = logging.getLogger(__name__)


async def bury_dead_letters(house: House, crew: Crew, turns: Turns) -> None:
    """Runs until cancelled. A letter is acked when its task has ended, or is somebody's who goes on with it."""
    async with house.turns.dead_turns() as letters:
        async for letter in letters:
            with bound(task_id=letter.task_id):
                logger.error("dead letter", extra={"reason": letter.reason})
                crew.metrics.count_dead_letter(letter.reason)
                await _fail(letter, turns)
                await letter.ack()


async def _fail(letter: DeadTurn, turns: Turns) -> None:
    """Until it is done: the letter stays in hand while a store is away."""
    while True:
        try:
            return await turns.fail(letter.task_id, UNDELIVERABLE)
        except (Unavailable, AttemptEnded) as why:
            logger.warning("dead letter waits", extra={"why": type(why).__name__})
        await asyncio.sleep(TRY_AGAIN * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
