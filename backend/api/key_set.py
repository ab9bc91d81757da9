"""The public keys that a JWKS URL publishes."""

from __future__ import annotations

import asyncio
import logging
import time

import httpx2
import jwt

from backend.chat.models import Json
from backend.errors import Unavailable

_FRESH_FOR, _REFETCH_AFTER, _TIMEOUT, _MAX_BYTES = 300.0, 10.0, 5.0, 1_000_000
_NO_KEYS = (
    httpx2.HTTPError, jwt.PyJWTError,
    ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
logger = logging.getLogger(__name__)


class KeySet:
    """The public keys behind a JWKS URL: fetched when needed, kept five minutes, asked again for an unknown id."""

    def __init__(self, url: str, algorithm: str) -> None:
        self._url = url
        self._algorithm = algorithm
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._turnstile = asyncio.Lock()

    async def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key with that id, or the only key when the token names none. Raises Unavailable without any keys."""
        fresh = time.monotonic() - self._fetched_at < _FRESH_FOR
        if not fresh or (key_id is not None and key_id not in self._keys):
            await self._refresh()
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        async with self._turnstile:
            now = time.monotonic()
            if now - self._tried_at < _REFETCH_AFTER:
                if not self._keys:
                    raise Unavailable
                return
            self._tried_at = now
            try:
                document = await self._fetch()
                keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(document).keys}
            except _NO_KEYS as error:
                logger.warning("key set not fetched", extra={"why": type(error).__name__})
                if not self._keys:
                    raise Unavailable from None
                return
            self._keys = {id: key for id, key in keys.items() if key.algorithm_name == self._algorithm}
            self._fetched_at = time.monotonic()

    async def _fetch(self) -> Json:
        async with asyncio.timeout(_TIMEOUT), httpx2.AsyncClient(timeout=_TIMEOUT) as client:
            answer = await client.get(self._url)
            answer.raise_for_status()
            if len(answer.content) > _MAX_BYTES:
                raise ValueError("key set too large")
            return answer.json()
