"""Turns in child processes: a turn that kills its process then takes no other turn with it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process

from backend.chat.models import Turn
from backend.chat.resources import Resources
from backend.errors import Unavailable
from backend.ids import ExecutorId
from executor.turns.ownership import is_dead

MAX_CHILDREN = 4
"""Child processes of one executor at the same time, of about 100 MB each. Further turns wait."""
CHECK_EVERY = 5.0
"""Seconds between two checks of a child's heartbeat."""
FROZEN_AFTER = 30.0
"""Seconds without a heartbeat after which a child is killed. On a busy machine, the start of a child takes a part of
them.
"""
STOP_LIMIT = 5.0
"""Seconds that a child has to end after each signal."""
logger = logging.getLogger(__name__)


class TurnProcesses:
    """The child processes of one executor, each of which runs one turn.

    A child has an executor id, a heartbeat and a claim of its own. If this process dies, it hands its turn back and
    ends.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._room = asyncio.Semaphore(MAX_CHILDREN)
        self._running: set[Process] = set()
        self._stopping = False

    async def run(self, turn: Turn, me: ExecutorId) -> bool:
        """Runs the turn in a child with executor id `me`. Returns False if the child handed it back, or died."""
        # imported here because few executors ever need it and the rest of its package
        from backend.embedded.children import tied_to_parent

        async with self._room:
            if self._stopping:
                return False
            command = [sys.executable, "-m", "executor", turn.task_id, turn.session_id, me]
            process = await asyncio.create_subprocess_exec(
                *tied_to_parent(command, death_signal=signal.SIGTERM), stdin=DEVNULL
            )
            self._running.add(process)
            logger.info("turn runs in a child process", extra={"executor_id": me, "pid": process.pid})
            try:
                code = await self._watch(process, me)
            finally:
                self._running.discard(process)
                await _end(process)
        logger.info("child process ended", extra={"executor_id": me, "code": code})
        return code == 0

    async def _watch(self, process: Process, me: ExecutorId) -> int:
        """Returns the child's exit code. Kills a frozen child: other executors take it for dead as well."""
        beat = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(CHECK_EVERY):
                    return await process.wait()
            except TimeoutError:
                if not await self._is_silent(me):
                    beat = time.monotonic()
                elif time.monotonic() - beat > FROZEN_AFTER:
                    logger.warning("child process was frozen and is killed", extra={"executor_id": me})
                    _send(process, signal.SIGKILL)

    async def _is_silent(self, me: ExecutorId) -> bool:
        try:
            return await is_dead(self._resources, me)
        except Unavailable:
            return False

    def stop(self) -> None:
        """Asks all children to end, and starts no more of them."""
        self._stopping = True
        for process in self._running:
            _send(process, signal.SIGTERM)


def _send(process: Process, signum: signal.Signals) -> None:
    if process.returncode is None:  # `send_signal` raises if the process has ended
        process.send_signal(signum)


async def _end(process: Process) -> None:
    """Ends a child that still runs, by SIGTERM and then by SIGKILL."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        _send(process, signum)
        await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=STOP_LIMIT)
