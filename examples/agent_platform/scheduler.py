"""The scheduler: starts the runs whose time has come."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from datetime import datetime

from examples.agent_platform.problems import Problem
from examples.agent_platform.runner import Runner
from examples.agent_platform.runs import NewRun
from examples.agent_platform.schedules import Schedule, Schedules

LONGEST_SLEEP, RETRY = 60.0, 5.0
"""Seconds between two looks at the clock, which may be set, and before a run that found no room is tried again."""
logger = logging.getLogger(__name__)


class Scheduler:
    """Times that passed while the process was down, or while there was no room, become one run, as late as it is."""

    def __init__(self, schedules: Schedules, runner: Runner, now: Callable[[], datetime]) -> None:
        self._schedules = schedules
        self._runner = runner
        self._now = now
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Has the scheduler look again, because schedules were changed."""
        self._woken.set()

    async def run(self) -> None:
        """Starts due runs until cancelled."""
        while True:
            self._woken.clear()
            try:
                pause = await self.look()
            except sqlite3.Error as error:
                logger.error("schedules cannot be read: %s", error)  # noqa: TRY400
                pause = RETRY
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def look(self) -> float:
        """Starts the runs that are due. Returns the seconds until the next look."""
        postponed = False
        now, after = self._now(), (0.0, "")
        while found := await self._schedules.due(now, after):
            for schedule in found:
                postponed = not await self._start(schedule) or postponed
            after = found[-1].next_run_at.timestamp(), found[-1].id
        if postponed:
            return RETRY
        upcoming = await self._schedules.next_time()
        if upcoming is None:
            return LONGEST_SLEEP
        return min(max((upcoming - self._now()).total_seconds(), 0.0), LONGEST_SLEEP)

    async def _start(self, schedule: Schedule) -> bool:
        """Returns False if there is no room for the run now. The key starts one run, also if the process dies here."""
        due = schedule.next_run_at.isoformat()
        payload = {"schedule_id": schedule.id, "scheduled_for": due}
        new = NewRun(
            schedule.user_id, schedule.graph_id, schedule.version, schedule.node_input, payload,
            f"schedule {schedule.id} {due}",
        )  # fmt: skip
        try:
            await self._runner.start(new)
        except Problem as problem:
            logger.warning("schedule %s could not start its run: %s", schedule.id, problem.sentence)
            if problem.status == 429:
                return False
        try:
            await self._schedules.advance(schedule, self._now())
        except Problem as problem:  # its time zone is gone
            logger.error("schedule %s is paused: %s", schedule.id, problem.sentence)  # noqa: TRY400
            await self._schedules.pause(schedule.user_id, schedule.id, True, self._now())
        return True
