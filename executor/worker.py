"""The executor's loop: takes turns while there are free slots, beside the jobs that a running turn needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager

from backend.chat.flows import House
from backend.chat.turns import Delivery
from backend.errors import AttemptEnded, Unavailable
from backend.failpoints import reach
from backend.logs import bound
from executor.attempt import Interruption
from executor.cancel import listen_for_wishes, look_after_claims
from executor.children import Children
from executor.crew import Crew
from executor.dead_letters import bury_dead_letters
from executor.keeper import keep_leases
from executor.lone_turn import LoneTurn
from executor.sweeper import Sweeper
from executor.turn import Turns

PAUSE_BEFORE_RETURN = 1.0
LAST_WORDS = 5.0
logger = logging.getLogger(__name__)


class Worker:
    """`run` works until `stop` is set, then lets turns end for SHUTDOWN_GRACE seconds and hands the rest back.

    A child process works on its `lone` turn; else the worker takes turns from the queue, and is a backstop for others.
    """

    def __init__(self, house: House, crew: Crew, lone: LoneTurn | None = None) -> None:
        self._house = house
        self._crew = crew
        self._lone = lone
        self._children = Children(house)
        self._turns = Turns(house, crew, self._children if lone is None else None)
        self._jobs: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """When a side job ends, the worker stops too: an executor without a heartbeat must not go on."""
        await self._crew.heartbeat.begin()
        async with asyncio.TaskGroup() as group:
            side_jobs = [group.create_task(_unending(work, name)) for name, work in self._side_jobs().items()]
            await self._take_turns(stop)
            for job in side_jobs:
                job.cancel()
        await self._crew.heartbeat.farewell()

    def _side_jobs(self) -> dict[str, Coroutine[None, None, None]]:
        house, turns = self._house, self._turns
        jobs = {
            "heartbeat": self._crew.heartbeat.run(),
            "cancel wishes": listen_for_wishes(house, turns),
            "claims": look_after_claims(house, turns),
            "leases": keep_leases(house, turns),
        }
        if self._lone is None:
            jobs["sweeper"] = Sweeper(house).run()
            jobs["dead letters"] = bury_dead_letters(house, self._crew, turns)
        return jobs

    def _queue(self) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        if self._lone is not None:
            return self._lone.consume()
        return self._house.turns.consume(self._house.settings.executor_concurrency)

    async def _take_turns(self, stop: asyncio.Event) -> None:
        async with self._queue() as deliveries:
            stopped = asyncio.ensure_future(stop.wait())
            taking = asyncio.ensure_future(self._take_all(deliveries))
            try:
                await asyncio.wait({stopped, taking}, return_when=asyncio.FIRST_COMPLETED)
                if not stop.is_set():
                    taking.result()
            finally:
                stopped.cancel()
                taking.cancel()
        self._stopping = True
        await self._drain()

    async def _take_all(self, deliveries: AsyncIterator[Delivery]) -> None:
        async for delivery in deliveries:
            job = asyncio.create_task(self._settle(delivery))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)
        raise RuntimeError("the turn queue ended its consumer")

    async def _settle(self, delivery: Delivery) -> None:
        """All that can become of a delivery."""
        turn = delivery.turn
        with bound(task_id=turn.task_id, session_id=turn.session_id):
            try:
                await self._turns.run(turn)
                reach("after_terminal_before_ack")
            except (AttemptEnded, Unavailable) as why:
                logger.warning("turn handed back", extra={"why": type(why).__name__})
                await self._hand_back(delivery)
            except Exception:  # the boundary of the worker: one delivery must not stop the others
                logger.exception("turn handed back after a fault of ours")
                await self._hand_back(delivery)
            else:
                await delivery.ack()

    async def _hand_back(self, delivery: Delivery) -> None:
        try:
            await self._turns.let_go(delivery.turn.task_id)
        except (AttemptEnded, Unavailable) as why:
            logger.warning("claim not let go", extra={"why": type(why).__name__})
        if not self._stopping:
            await asyncio.sleep(PAUSE_BEFORE_RETURN * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        if not await delivery.hand_back():  # its connection is gone, and perhaps its copy was acked as ours
            await self._house.outbox.publish(delivery.turn)

    async def _drain(self) -> None:
        """Turns may end by themselves for a while; what still runs then is handed back, and no crash is counted."""
        self._children.stop()
        if self._jobs:
            logger.info("stopping", extra={"turns": len(self._jobs)})
            await asyncio.wait(self._jobs, timeout=self._house.settings.shutdown_grace)
        for attempt in list(self._turns.running.values()):
            attempt.interrupt(Interruption.HANDED_BACK)
        if self._jobs:
            _, late = await asyncio.wait(self._jobs, timeout=LAST_WORDS)
            for job in late:
                job.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._crew.finish(LAST_WORDS)
        with contextlib.suppress(Unavailable):  # then the sweeper finds them, when our heartbeat has lapsed
            await self._turns.let_all_go()


async def _unending(work: Coroutine[None, None, None], name: str) -> None:
    """A group takes no notice of jobs that return, nor of those that a library has cancelled."""
    job = asyncio.current_task()
    try:
        await work
    except asyncio.CancelledError:
        if job is None or job.cancelling():
            raise
    raise RuntimeError(f"a side job has ended: {name}")
