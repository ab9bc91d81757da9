"""How a wish to cancel reaches a running attempt: by the fanout at once, or by a look at Postgres once a second.

The same look ends attempts whose claim is gone (another executor's by now, or deleted with its session), and lets
claims go that nothing here works on (a hand-back that Postgres did not take).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from backend.chat import tasks
from backend.chat.flows import House
from backend.chat.models import Turn
from backend.errors import Unavailable
from backend.ids import TaskId
from executor.attempt import Interruption
from executor.turn import Turns

LOOK_EVERY = 1.0
logger = logging.getLogger(__name__)


async def listen_for_wishes(house: House, turns: Turns) -> None:
    """Runs until cancelled."""
    async with house.turns.cancel_wishes() as wishes:
        async for task_id in wishes:
            if (attempt := turns.running.get(task_id)) is not None:
                attempt.interrupt(Interruption.CANCELLED)


async def look_after_claims(house: House, turns: Turns) -> None:
    """Runs until cancelled."""
    strays: set[TaskId] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY)
        with contextlib.suppress(Unavailable):  # the next look comes soon
            working = dict(turns.running)
            async with house.database.connection() as c:
                owned = {task.id: task for task in await tasks.tasks_of_owner(c, house.me)}
            for task_id, attempt in working.items():
                if task_id not in owned:
                    attempt.interrupt(Interruption.LOST)
                elif owned[task_id].cancel_requested:
                    attempt.interrupt(Interruption.CANCELLED)
            idle = {task_id: task for task_id, task in owned.items() if task_id not in turns.running}
            for task_id in strays & idle.keys():  # seen twice: not just between a claim and its attempt
                logger.warning("a claim without an attempt is let go", extra={"task_id": task_id})
                await turns.let_go(idle[task_id].id)
                await house.outbox.publish(Turn(idle[task_id].id, idle[task_id].session_id))
            strays = set(idle)
