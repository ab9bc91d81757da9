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
    strays: set[Turn] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY)
        with contextlib.suppress(Unavailable):  # the next look comes soon
            working = dict(turns.running)
            async with house.database.connection() as c:
                claims = await tasks.claims_of(c, house.me)
            wished = {turn.task_id: cancelled for turn, cancelled in claims.items()}
            for task_id, attempt in working.items():
                if task_id not in wished:
                    attempt.interrupt(Interruption.LOST)
                elif wished[task_id]:
                    attempt.interrupt(Interruption.CANCELLED)
            idle = {turn for turn in claims if turn.task_id not in turns.running}
            for turn in strays & idle:  # seen twice: not just between a claim and its attempt
                logger.warning("a claim without an attempt is let go", extra={"task_id": turn.task_id})
                await turns.let_go(turn.task_id)
                await house.outbox.publish(turn)
            strays = idle
