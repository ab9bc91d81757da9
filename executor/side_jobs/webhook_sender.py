"""Side job that sends the events of users to their endpoints. The sweeper wakes it when something is due."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress

from aiohttp import ClientSession

from backend.chat.resources import Resources
from backend.chat.store import messages
from backend.chat.store.webhooks import deliveries
from backend.chat.store.webhooks.deliveries import SENT_FOR, ClaimedDelivery, Failure
from backend.errors import Unavailable
from backend.failpoints import reach
from backend.ids import UserId
from backend.outside_addresses import OutsideAddresses
from executor.metrics import ExecutorMetrics
from executor.webhooks.attempt import AttemptResult, open_client, post_event, wait_after
from executor.webhooks.message import body_of, headers_of

AT_ONCE, AT_ONCE_OF_USER, AT_ONCE_TO_ONE = 32, 8, 4
"""Attempts that run at the same time: of an executor, for one user, and to one endpoint."""
logger = logging.getLogger(__name__)


class WebhookSender:
    """The sender of one executor. Several may send at the same time: each attempt is claimed by one of them."""

    def __init__(self, resources: Resources, metrics: ExecutorMetrics) -> None:
        self._resources = resources
        self._metrics = metrics
        self._woken = asyncio.Event()
        self._sending: Counter[tuple[UserId, str]] = Counter()
        """The attempts that run, by user and endpoint."""

    def wake(self) -> None:
        """Has the sender look for due deliveries."""
        self._woken.set()

    async def run(self) -> None:
        """Sends until cancelled. What is being sent then is sent again when its lease has lapsed."""
        await self._woken.wait()
        addresses = OutsideAddresses(self._resources.settings.webhook_private_networks)
        async with open_client(addresses, AT_ONCE) as client, asyncio.TaskGroup() as group:
            while True:
                await self._woken.wait()
                self._woken.clear()
                for claimed in await self._claim():
                    self._sending[claimed.user_id, claimed.endpoint_id] += 1
                    group.create_task(self._deliver(client, claimed))

    async def _claim(self) -> list[ClaimedDelivery]:
        """Claims what fits, of endpoints to which nothing is being sent. The sweeper wakes the sender for the rest."""
        room = AT_ONCE - self._sending.total()
        if room <= 0:
            return []
        of_user: Counter[UserId] = Counter()
        for (user_id, _), many in self._sending.items():
            of_user[user_id] += many
        try:
            async with self._resources.database.connection() as c:
                return await deliveries.claim_due(
                    c,
                    limit=room,
                    per_endpoint=AT_ONCE_TO_ONE,
                    per_user=AT_ONCE_OF_USER,
                    besides=[endpoint_id for _, endpoint_id in self._sending],
                    sending=of_user,
                )
        except Unavailable:
            return []

    async def _deliver(self, client: ClientSession, claimed: ClaimedDelivery) -> None:
        try:
            result = await self._attempt(client, claimed)
            reach("after_webhook_attempt")
            await self._settle(claimed, result)
        except Unavailable:
            logger.warning("webhook attempt will be repeated", extra={"delivery": claimed.id})
        except Exception:  # the boundary of a delivery
            logger.exception("webhook attempt has failed by an internal error", extra={"delivery": claimed.id})
            with suppress(Exception):  # it is claimed again when its lease has lapsed
                await self._settle(claimed, AttemptResult(Failure.NOT_ANSWERED))
        finally:
            self._sending -= Counter([(claimed.user_id, claimed.endpoint_id)])
            self.wake()

    async def _attempt(self, client: ClientSession, claimed: ClaimedDelivery) -> AttemptResult:
        answer = None
        if claimed.with_text:
            async with self._resources.database.connection() as c:
                answer = await messages.messages_of_task(c, claimed.task_id)
        body = body_of(claimed, answer)
        return await post_event(client, claimed.url, body, headers_of(claimed, body))

    async def _settle(self, claimed: ClaimedDelivery, result: AttemptResult) -> None:
        async with self._resources.database.transaction() as c:
            if result.failure is None:
                await deliveries.settle_delivered(c, claimed, result.answer or 0)
            elif result.failure is Failure.GONE:
                await deliveries.settle_gone(c, claimed)
            else:
                wait = wait_after(claimed.waited, result.retry_after)
                last = claimed.waited + wait > SENT_FOR
                pause_for = wait_after(claimed.failing, result.retry_after)
                await deliveries.settle_failed(
                    c, claimed, result.failure, result.answer, wait=None if last else wait, pause_for=pause_for
                )
        self._metrics.count_webhook_attempt("delivered" if result.failure is None else "failed")
