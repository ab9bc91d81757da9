"""How a wish to cancel reaches a running attempt: by the fanout at once, or by a look at Postgres once a second.

The same look finds claims of this process that nothing here works on (a hand-back that Postgres did not take), and
lets them go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from backend.chat import tasks
from backend.chat.flows import House, publish_turn
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
            async with house.database.connection() as c:
                owned = await tasks.tasks_of_owner(c, house.me)
            for task in owned:
                if (attempt := turns.running.get(task.id)) is None:
                    continue
                if task.cancel_requested:
                    attempt.interrupt(Interruption.CANCELLED)
            idle = {task.id: task for task in owned if task.id not in turns.running}
            for task_id in strays & idle.keys():  # seen twice: not just between a claim and its attempt
                logger.warning("a claim without an attempt is let go", extra={"task_id": task_id})
                await turns.let_go(idle[task_id].id)
                await publish_turn(house, Turn(idle[task_id].id, idle[task_id].session_id))
            strays = set(idle)
