"""The sender of webhooks alone, without an executor beside it that would send, too."""

from __future__ import annotations

import asyncio

from executor.metrics import ExecutorMetrics
from executor.side_jobs.webhook_sender import AT_ONCE_OF_USER, AT_ONCE_TO_ONE, WebhookSender
from tests.integration.rows import new_user
from tests.integration.running_api import running_api
from tests.integration.test_stores_webhooks import an_endpoint, ended_turn
from tests.servers.receiver import receiver


async def test_slow_endpoints_of_one_user_leave_places_for_others(postgres_dsn: str, redis_dsn: str) -> None:
    own = {"executor": False, "webhook_private_networks": "127.0.0.0/8"}
    async with receiver() as inbox, running_api(postgres_dsn, redis_dsn, **own) as api:
        slow, quick = new_user(), new_user()
        inbox.silent_paths = {f"/slow{number}" for number in range(3)}
        sender = WebhookSender(api.resources, ExecutorMetrics())
        async with api.resources.database.connection() as c:
            await c.execute("DELETE FROM webhook_endpoints")
            for path in inbox.silent_paths:
                await an_endpoint(c, slow, url=inbox.url(path))
            for _ in range(AT_ONCE_TO_ONE):
                await ended_turn(c, slow)
            sending = asyncio.create_task(sender.run())
            try:
                sender.wake()
                held = [await inbox.next() for _ in range(AT_ONCE_OF_USER)]
                await an_endpoint(c, quick, url=inbox.url("/quick"))
                await ended_turn(c, quick)
                sender.wake()
                assert (await inbox.next()).path == "/quick", "a user has a share of the places"
            finally:
                sending.cancel()
                await asyncio.wait({sending})
        assert {request.path for request in held} <= inbox.silent_paths
