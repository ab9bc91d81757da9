"""Turns that run apart, each in a child process of its own: one that kills its process takes no other turn with it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process

from backend.chat.flows import House
from backend.chat.models import Turn
from backend.errors import Unavailable
from backend.ids import ExecutorId
from executor.ownership import is_dead

MOST = 4
"""Child processes of one executor at once; each is some 100 MB. Further turns wait for room."""
LOOK_EVERY = 5.0
FROZEN_AFTER = 30.0
"""Without a heartbeat so long on end. A busy machine needs some of it to start a child."""
ENDS_WITHIN = 5.0
logger = logging.getLogger(__name__)


class Children:
    """A child has an executor's id, heartbeat and claim; it ends, handing its turn back, when this process dies."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._room = asyncio.Semaphore(MOST)
        self._running: set[Process] = set()
        self._stopping = False

    async def run(self, turn: Turn, me: ExecutorId) -> bool:
        """Runs the turn as executor `me`. Whether it was dealt with; else the child handed it back, or died."""
        from backend.embedded.children import leashed  # with the rest of its package, which few executors ever need

        async with self._room:
            if self._stopping:
                return False
            command = [sys.executable, "-m", "executor", turn.task_id, turn.session_id, me]
            process = await asyncio.create_subprocess_exec(
                *leashed(command, death_signal=signal.SIGTERM), stdin=DEVNULL
            )
            self._running.add(process)
            logger.info("turn runs apart", extra={"executor_id": me, "pid": process.pid})
            try:
                code = await self._watch(process, me)
            finally:
                self._running.discard(process)
                await _end(process)
        logger.info("a child ended", extra={"executor_id": me, "code": code})
        return code == 0

    async def _watch(self, process: Process, me: ExecutorId) -> int:
        """Its exit code. One that is frozen is killed: others have taken its turn for a dead executor's, too."""
        beat = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    return await process.wait()
            except TimeoutError:
                if not await self._is_silent(me):
                    beat = time.monotonic()
                elif time.monotonic() - beat > FROZEN_AFTER:
                    logger.warning("a child is frozen and killed", extra={"executor_id": me})
                    _send(process, signal.SIGKILL)

    async def _is_silent(self, me: ExecutorId) -> bool:
        try:
            return await is_dead(self._house, me)
        except Unavailable:
            return False

    def stop(self) -> None:
        """Asks all to end, as this process was asked; none is started any more."""
        self._stopping = True
        for process in self._running:
            _send(process, signal.SIGTERM)


def _send(process: Process, demand: signal.Signals) -> None:
    if process.returncode is None:  # else it has ended just now, and that is an error of `send_signal`
        process.send_signal(demand)


async def _end(process: Process) -> None:
    """Nothing of a child is left behind."""
    for demand in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        _send(process, demand)
        await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=ENDS_WITHIN)
