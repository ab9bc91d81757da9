"""The executor's loop: takes turns while there are free slots, beside the jobs that a running turn needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator

from backend.chat.flows import House
from backend.chat.turns import Delivery
from backend.errors import AttemptEnded, Unavailable
from backend.failpoints import reach
from backend.logs import bound
from executor.attempt import Interruption
from executor.cancel import listen_for_wishes, look_after_claims
from executor.crew import Crew
from executor.keeper import keep_leases
from executor.sweeper import Sweeper
from executor.turn import Turns

PAUSE_BEFORE_RETURN = 1.0
LAST_WORDS = 5.0
logger = logging.getLogger(__name__)


class Worker:
    """`run` works until `stop` is set, then lets turns end for SHUTDOWN_GRACE seconds and hands the rest back."""

    def __init__(self, house: House, crew: Crew) -> None:
        self._house = house
        self._crew = crew
        self._turns = Turns(house, crew)
        self._jobs: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """When a side job dies, the worker stops too: an executor without a heartbeat must not go on."""
        await self._crew.heartbeat.begin()
        async with asyncio.TaskGroup() as group:
            side_jobs = [
                group.create_task(self._crew.heartbeat.run(), name="heartbeat"),
                group.create_task(listen_for_wishes(self._house, self._turns), name="cancel wishes"),
                group.create_task(look_after_claims(self._house, self._turns), name="claims"),
                group.create_task(keep_leases(self._house, self._turns), name="leases"),
                group.create_task(Sweeper(self._house).run(), name="sweeper"),
            ]
            await self._take_turns(stop)
            for job in side_jobs:
                job.cancel()
        await self._crew.heartbeat.farewell()

    async def _take_turns(self, stop: asyncio.Event) -> None:
        async with self._house.turns.consume(self._house.settings.executor_concurrency) as deliveries:
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
