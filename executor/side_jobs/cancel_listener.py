"""Side jobs that bring cancel requests to running attempts: at once from the queue, or within a second from Postgres.

The check in Postgres also stops attempts whose claim is gone, because another executor has taken the task over or its
session was deleted. It releases claims that no attempt works on, which remain if Postgres failed during a hand-back.
This process asks Postgres every second while it does work that may claim a task, and for CHECK_AFTER seconds more.
After that it asks only if the heartbeat in Postgres has found a claim (`executors.beat`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence

from backend.chat.models import Turn
from backend.chat.resources import Resources
from backend.chat.store import tasks
from backend.chat.store.tasks import Claim
from backend.errors import Unavailable
from backend.ids import TaskId
from executor.turns.attempt import Attempt, Interruption
from executor.turns.runner import TurnRunner

CHECK_EVERY = 1.0
"""Seconds between two checks of this executor's claims."""
CHECK_AFTER = 10.0
"""Seconds for which the checks continue after the last work: Postgres may commit a claim whose reply was lost."""
_NEVER = float("-inf")
logger = logging.getLogger(__name__)


async def listen_for_cancels(resources: Resources, runner: TurnRunner) -> None:
    """Interrupts attempts when the queue brings a cancel request. Runs until cancelled."""
    async with resources.turn_queue.cancel_requests() as requests:
        async for task_id in requests:
            if (attempt := runner.running.get(task_id)) is not None:
                attempt.interrupt(Interruption.CANCELLED)


async def check_claims(resources: Resources, runner: TurnRunner) -> None:
    """Compares this executor's claims in Postgres with its attempts. Runs until cancelled."""
    idle_before: set[Turn] = set()
    clear_at = _NEVER
    while True:
        await asyncio.sleep(CHECK_EVERY)
        if _is_quiet(resources, clear_at):
            continue
        with contextlib.suppress(Unavailable):  # the next check comes soon
            began, working = time.monotonic(), dict(runner.running)
            resources.claiming.found = False  # before the check: a later heartbeat may find what it does not see
            async with resources.database.connection() as c:
                claims = await tasks.claims_of(c, resources.me)
            clear_at = _NEVER if claims else began
            _interrupt(working, claims)
            idle = {claim.turn for claim in claims if not resources.claiming.on(claim.turn.task_id)}
            for turn in idle_before & idle:  # idle in two checks: the first may have read a claim that was then ended
                logger.warning("claim without an attempt is released", extra={"task_id": turn.task_id})
                await runner.release(turn.task_id, in_hand=False)
                await resources.outbox.publish(turn)
            idle_before = idle


def _is_quiet(resources: Resources, clear_at: float) -> bool:
    """Returns True if the check at `clear_at` found no claim, and none can have been made since."""
    claiming = resources.claiming
    return not claiming.running and not claiming.found and clear_at - claiming.ended_at >= CHECK_AFTER


def _interrupt(working: Mapping[TaskId, Attempt], claims: Sequence[Claim]) -> None:
    cancels = {claim.turn.task_id: claim.cancel_requested for claim in claims}
    for task_id, attempt in working.items():
        if task_id not in cancels:
            attempt.interrupt(Interruption.LOST)
        elif cancels[task_id]:
            attempt.interrupt(Interruption.CANCELLED)
