"""The route class of webhooks, which authenticates services by signature or key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

from fastapi import Request
from redis.asyncio import Redis
from redis.exceptions import RedisError

from backend.api.auth import SIGNATURE
from backend.api.routes_base import OpenRoute
from backend.api.state import ApiState, state_of
from backend.chat.keys import WEBHOOK_TTL, webhook_key
from backend.config import Settings
from backend.errors import InvalidApiKey, OperationNotFound, SignatureInvalid, WebhookNotConfigured, WebhookReused
from backend.ids import OperationId
from backend.logs import why_away

OVERHEAD = 64 << 10
"""Bytes that a webhook's body may have in addition to an agent of the largest size."""
REDIS_LIMIT = 1.0
"""Seconds for remembering a signed message."""
logger = logging.getLogger(__name__)


class WebhookRoute(OpenRoute):
    """A route for services only. A signature is checked if the request has one, otherwise the key.

    Without a configured key or secret every request is refused.
    """

    max_values = 100_000

    def body_limit(self, settings: Settings) -> int:
        return settings.max_body_bytes + OVERHEAD

    async def admit(self, request: Request, api: ApiState) -> None:
        if not api.service_keys.configured and not api.webhook_secrets.configured:
            raise WebhookNotConfigured
        if self._by_signature(request, api):
            return
        if not api.service_keys.valid(request.headers):
            raise InvalidApiKey
        if api.service_keys.is_old(request.headers):
            api.metrics.count_old_key()

    def check_raw(self, request: Request, api: ApiState, body: bytes) -> None:
        if not self._by_signature(request, api):
            return
        signatures = api.webhook_secrets.signatures(request.headers, body)
        if not signatures:
            raise SignatureInvalid
        state_of(request).signatures = signatures

    @staticmethod
    def _by_signature(request: Request, api: ApiState) -> bool:
        return api.webhook_secrets.configured and SIGNATURE in request.headers


@asynccontextmanager
async def counting_once(request: Request, operation_id: OperationId) -> AsyncIterator[None]:
    """Binds a signed message to the first operation for which it is sent, since its signature does not cover the path.

    Raises WebhookReused for another operation. A message for an operation that does not exist is not bound. While Redis
    is unavailable nothing is bound, and outcomes are still accepted.
    """
    redis, new = state_of(request).api.resources.redis, []
    signatures: Sequence[str] = getattr(request.state, "signatures", ())
    for key in map(webhook_key, signatures):
        bound = await _bind(redis, key, operation_id)
        if bound is None:
            new.append(key)
        elif bound != operation_id:
            raise WebhookReused
    try:
        yield
    except OperationNotFound:
        await _unbind(redis, new)
        raise


async def _bind(redis: Redis, key: str, operation_id: OperationId) -> str | None:
    """Returns the operation to which the message was bound before, or None."""
    try:
        async with asyncio.timeout(REDIS_LIMIT):
            known = cast("bytes | None", await redis.set(key, operation_id, nx=True, ex=WEBHOOK_TTL, get=True))
    except (RedisError, OSError) as error:  # TimeoutError is an OSError
        logger.warning("signed message was not remembered", extra={"error": why_away(error)})
        return None
    return None if known is None else known.decode()


async def _unbind(redis: Redis, keys: Sequence[str]) -> None:
    if not keys:
        return
    try:
        async with asyncio.timeout(REDIS_LIMIT):
            await asyncio.gather(*map(redis.delete, keys))
    except (RedisError, OSError) as error:
        logger.warning("signed message was not forgotten", extra={"error": why_away(error)})
