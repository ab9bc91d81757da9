"""Delivers the outcome of an operation: by webhook, retried after growing waits, or by the Redis Stream."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx2
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError
from standardwebhooks import Webhook

from examples.agent_generator.options import Options

COMPLETIONS = "chat:completions"
TRY_LIMIT = 15.0  # seconds
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """The operation of an outcome, and the way to deliver it."""

    operation_id: str
    task_id: str
    callback_url: str | None
    way: str
    copies: int = 1
    auth: str | None = None


def may_call_back(url: str, base: str | None) -> bool:
    """Returns True if a callback URL is below `base`, as far as the end of a part: `http://a@b` is not below `http://a`."""
    return url.startswith(f"{base.rstrip('/')}/" if base else ("http://", "https://"))


class Refused(Exception):
    """The receiver refused the delivery, so another attempt would fail too."""


class Away(Exception):
    """The receiver did not accept the delivery this time."""


class Deliveries:
    """The client of the service: it delivers outcomes and progress reports."""

    def __init__(self, options: Options, client: httpx2.AsyncClient, redis: Redis | RedisCluster | None) -> None:
        self._options = options
        self._client = client
        self._redis = redis
        self._webhook = Webhook(options.webhook_secret) if options.webhook_secret else None

    @property
    def has_stream(self) -> bool:
        return self._redis is not None

    async def complete(self, order: Order, outcome: dict[str, Any]) -> None:
        """Delivers the outcome `order.copies` times. After the last retry it gives up and logs an error."""
        for number in range(1, order.copies + 1):
            await self._climb(order, partial(self._tell, order, outcome))
            logger.info("outcome %d of %d of operation %s is finished", number, order.copies, order.operation_id)

    async def _tell(self, order: Order, outcome: dict[str, Any]) -> None:
        if order.way == "stream":
            await self._add({"operation_id": order.operation_id, "task_id": order.task_id, **outcome})
        else:  # all attempts and copies are the same message, with one id
            await self._post(order.callback_url or "", f"msg_{order.operation_id}", outcome, order.auth)

    async def report(self, order: Order, percent: int, message: str) -> None:
        """Sends one progress report. It is not retried, because the next one replaces it."""
        url = (order.callback_url or "").removesuffix("/complete") + "/progress"
        try:
            report = {"percent": percent, "message": message}
            await self._post(url, f"msg_{order.operation_id}_{percent}", report, order.auth)
        except (Refused, Away) as error:
            logger.warning("progress of operation %s was not accepted: %s", order.operation_id, error)

    async def _climb(self, order: Order, attempt: Callable[[], Awaitable[None]]) -> None:
        for wait in (0.0, *self._options.ladder):
            await asyncio.sleep(wait * random.uniform(1.0, 1.1))  # noqa: S311 - jitter
            try:
                await attempt()
                return
            except Refused as error:
                logger.warning("the outcome of operation %s was refused: %s", order.operation_id, error)
                return
            except Away as error:
                logger.info("the outcome of operation %s was not accepted yet: %s", order.operation_id, error)
        logger.error("gave up delivering the outcome of operation %s", order.operation_id)

    async def _post(self, url: str, message_id: str, document: dict[str, Any], auth: str | None) -> None:
        body = json.dumps(document, separators=(",", ":"))
        headers = {"content-type": "application/json", **self._proof(message_id, body, auth)}
        try:
            async with asyncio.timeout(TRY_LIMIT):
                response = await self._client.post(url, content=body, headers=headers)
        except httpx2.InvalidURL:
            raise Refused("not a URL") from None
        except (httpx2.HTTPError, OSError) as error:
            raise Away(type(error).__name__) from None
        if 400 <= response.status_code < 500:
            raise Refused(f"status {response.status_code}")
        if (
            not 200 <= response.status_code < 300
        ):  # redirects count as failures: a message signed for one address goes to no other
            raise Away(f"status {response.status_code}")

    def _proof(self, message_id: str, body: str, auth: str | None) -> dict[str, str]:
        """Returns the headers that prove the sender: a signature, which does not reveal a secret, or else the key."""
        key = self._options.api_key
        if self._webhook is not None and not (auth == "keyed" and key):
            now = datetime.now(UTC)
            return {
                "webhook-id": message_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": self._webhook.sign(message_id, now, body),
            }
        return {"x-api-key": key} if key else {}

    async def _add(self, entry: dict[str, Any]) -> None:
        assert self._redis is not None
        try:
            async with asyncio.timeout(TRY_LIMIT):
                await self._redis.xadd(COMPLETIONS, {"data": json.dumps(entry, separators=(",", ":"))})
        except (RedisError, OSError) as error:
            raise Away(type(error).__name__) from None


def _redis_client(url: str) -> Redis | RedisCluster:
    """Opens `redis://host`, or `redis+cluster://host,host`, whose nodes tell about the others."""
    if "+cluster://" not in url:
        return Redis.from_url(url)
    return RedisCluster.from_url(url.replace("+cluster://", "://").partition(",")[0])


@asynccontextmanager
async def open_deliveries(options: Options) -> AsyncIterator[Deliveries]:
    async with AsyncExitStack() as stack:
        limits = httpx2.Limits(max_connections=50)
        client = httpx2.AsyncClient(timeout=TRY_LIMIT, limits=limits, follow_redirects=False, trust_env=False)
        await stack.enter_async_context(client)
        redis = _redis_client(options.redis_url) if options.redis_url else None
        if redis is not None:
            stack.push_async_callback(redis.aclose)
        yield Deliveries(options, client, redis)
