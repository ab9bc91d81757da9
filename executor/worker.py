"""The executor's main loop, which takes turns while slots are free, and the side jobs that it starts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from backend.chat.queue.turn_queue import Delivery
from backend.chat.resources import Resources
from backend.errors import AttemptEnded, Unavailable
from backend.failpoints import reach
from backend.jitter import jitter
from backend.logs import bound
from executor.side_jobs.cancel_listener import check_claims, listen_for_cancels
from executor.side_jobs.dead_letters import fail_dead_turns
from executor.side_jobs.file_sweep import FileSweep
from executor.side_jobs.lease_refresher import refresh_leases
from executor.side_jobs.remote_tasks import RemoteTasks
from executor.side_jobs.silent_operations import SilentOperations
from executor.side_jobs.sweeper import Sweeper
from executor.side_jobs.webhook_sender import WebhookSender
from executor.turns.attempt import Interruption
from executor.turns.context import ExecutorContext
from executor.turns.processes import TurnProcesses
from executor.turns.runner import TurnRunner
from executor.turns.single_turn import SingleTurnQueue

HAND_BACK_PAUSE = 1.0
"""Seconds (on average) before a turn is handed back, so that it does not return at once."""
STOP_LIMIT = 5.0
"""Seconds in which interrupted turns must end when the process stops; then the jobs beside them have as long."""
logger = logging.getLogger(__name__)


class Worker:
    """The main loop of one executor process.

    A child process runs the one turn of `single`. Any other takes turns from the queue, and runs the sweeper and the
    job for dead letters as well.
    """

    def __init__(self, resources: Resources, context: ExecutorContext, single: SingleTurnQueue | None = None) -> None:
        self._resources = resources
        self._context = context
        self._single = single
        self._processes = TurnProcesses(resources)
        self._runner = TurnRunner(resources, context, self._processes if single is None else None)
        self._jobs: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; then gives turns SHUTDOWN_GRACE seconds to end, and hands back the rest.

        Raises an exception group if a side job ends: an executor without a heartbeat, for one, must not continue.
        """
        await self._context.heartbeat.begin()
        async with asyncio.TaskGroup() as group:
            side_jobs = [group.create_task(_run_without_end(work, name)) for name, work in self._side_jobs().items()]
            await self._take_turns(stop)
            for job in side_jobs:
                job.cancel()
        await self._context.heartbeat.end()

    def _side_jobs(self) -> dict[str, Coroutine[None, None, None]]:
        resources, runner = self._resources, self._runner
        jobs = {
            "heartbeat": self._context.heartbeat.run(),
            "cancel requests": listen_for_cancels(resources, runner),
            "claims": check_claims(resources, runner),
            "leases": refresh_leases(resources, runner, self._context.metrics),
        }
        if self._single is None:
            metrics, silent = self._context.metrics, SilentOperations(resources, self._context)
            webhooks = WebhookSender(resources, metrics)
            jobs["webhooks"] = webhooks.run()
            files = FileSweep(resources)
            jobs["files"] = files.run()
            jobs["sweeper"] = Sweeper(resources, silent, metrics, webhooks, files).run()
            jobs["remote tasks"] = RemoteTasks(resources, self._context).run()
            jobs["dead letters"] = fail_dead_turns(resources, self._context, runner)
        return jobs

    def _queue(self) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        if self._single is not None:
            return self._single.consume()
        return self._resources.turn_queue.consume(self._resources.settings.executor_concurrency)

    async def _take_turns(self, stop: asyncio.Event) -> None:
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                await _first_of(stopped, asyncio.ensure_future(self._clock_is(right=True)))
                if not stop.is_set():
                    await self._consume(stopped)
        finally:
            stopped.cancel()
        self._stopping = True
        await self._drain()

    async def _consume(self, stopped: asyncio.Future[Any]) -> None:
        """Takes turns until the worker stops or its clock is wrong."""
        async with self._queue() as deliveries:
            taking = asyncio.ensure_future(self._take_all(deliveries))
            wrong = asyncio.ensure_future(self._clock_is(right=False))
            await _first_of(stopped, taking, wrong)
            if taking.done() and not taking.cancelled():
                taking.result()

    async def _clock_is(self, *, right: bool) -> None:
        """Waits until the clock of this machine is `right` or not. In a child process it always counts as right."""
        if self._single is None:
            await self._resources.liveness.skew.until(too_large=not right)
        elif not right:
            await asyncio.Event().wait()

    async def _take_all(self, deliveries: AsyncIterator[Delivery]) -> None:
        async for delivery in deliveries:
            job = asyncio.create_task(self._settle(delivery))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)
        raise RuntimeError("the turn queue ended its consumer")

    async def _settle(self, delivery: Delivery) -> None:
        """Runs the delivered turn, then acks the delivery or hands it back."""
        turn = delivery.turn
        with bound(task_id=turn.task_id, session_id=turn.session_id):
            try:
                await self._runner.run(turn)
                reach("after_terminal_before_ack")
            except (AttemptEnded, Unavailable) as error:
                logger.warning("turn was handed back", extra={"error": type(error).__name__})
                await self._hand_back(delivery)
            except Exception:  # the boundary of the worker: one delivery must not stop the others
                logger.exception("turn was handed back after an internal error")
                await self._hand_back(delivery)
            else:
                await delivery.ack()

    async def _hand_back(self, delivery: Delivery) -> None:
        try:
            await self._runner.release(delivery.turn.task_id, in_hand=True)
        except (AttemptEnded, Unavailable) as error:
            logger.warning("claim was not released", extra={"error": type(error).__name__})
        if not self._stopping:
            await asyncio.sleep(jitter(HAND_BACK_PAUSE, 0.5, 1.5))
        if not await delivery.hand_back():  # its connection is lost, and a copy of it may have been acked here
            await self._resources.outbox.publish(delivery.turn)

    async def _drain(self) -> None:
        """Gives running turns SHUTDOWN_GRACE seconds to end, then hands back the rest without counting a crash."""
        self._processes.stop()
        self._context.waits.over = True
        if self._jobs:
            logger.info("executor is stopping", extra={"turns": len(self._jobs)})
            await asyncio.wait(self._jobs, timeout=self._resources.settings.shutdown_grace)
        for attempt in list(self._runner.running.values()):
            attempt.interrupt(Interruption.HANDED_BACK)
        if self._jobs:
            _, late = await asyncio.wait(self._jobs, timeout=STOP_LIMIT)
            for job in late:
                job.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._context.end_side_jobs(STOP_LIMIT)
        with contextlib.suppress(Unavailable):  # the sweeper finds them once this heartbeat has lapsed
            await self._runner.release_all()


async def _run_without_end(work: Coroutine[None, None, None], name: str) -> None:
    """Raises RuntimeError when the job returns or a library cancels it; a TaskGroup would ignore both."""
    job = asyncio.current_task()
    try:
        await work
    except asyncio.CancelledError:
        if job is None or job.cancelling():
            raise
    raise RuntimeError(f"a side job has ended: {name}")


async def _first_of(stopped: asyncio.Future[Any], *jobs: asyncio.Future[None]) -> None:
    """Waits until the worker stops or one of the jobs is done, then cancels the jobs that still run."""
    try:
        await asyncio.wait({stopped, *jobs}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for job in jobs:
            job.cancel()
