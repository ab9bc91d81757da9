"""The public keys of a JWKS URL."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

import httpx2
import jwt
import orjson

from backend.chat.models import Json
from backend.errors import Unavailable
from backend.logs import Trouble

FRESH_FOR_S, STALE_FOR_S = 300.0, 24 * 3600.0
"""Seconds until keys are fetched again, and until keys that could not be fetched again are no longer used."""
REFETCH_AFTER_S = 10.0
_TIMEOUT_S, _MOST_WAIT_S = 5.0, 1.0
_MAX_BYTES = 1_000_000
logger = logging.getLogger(__name__)


class KeySet:
    """The keys of a JWKS URL, cached for five minutes.

    Keys that are older are still used while they are fetched again in the background, so a server that hangs or is
    unavailable keeps nobody waiting whose key is known. An unknown key id makes it fetch again, at most once in ten
    seconds; such a request waits one second at most.
    """

    def __init__(
        self,
        url: str,
        algorithm: str,
        *,
        fresh_for: float = FRESH_FOR_S,
        stale_for: float = STALE_FOR_S,
        refetch_after: float = REFETCH_AFTER_S,
    ) -> None:
        self._url = url
        self._algorithm = algorithm
        self._fresh_for, self._stale_for, self._refetch_after = fresh_for, stale_for, refetch_after
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None
        self._trouble = Trouble(logger, "key set could not be fetched")

    async def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """Returns the key with that id, or the only key if `key_id` is None. Returns None if there is no such key.

        Raises Unavailable if the key is unknown and the key set cannot be fetched now.
        """
        age = time.monotonic() - self._fetched_at
        if age > self._stale_for:
            self._keys = {}
        missing = key_id not in self._keys if key_id is not None else not self._keys
        if missing or age > self._fresh_for:
            self._start_fetching()
        if missing and self._fetching is not None:
            await asyncio.wait({self._fetching}, timeout=_MOST_WAIT_S)
        found = self._known(key_id)
        if missing and found is None and (self._fetching is not None or self._failed):
            raise Unavailable
        return found

    async def close(self) -> None:
        """Stops fetching."""
        if self._fetching is not None:
            self._fetching.cancel()
            with suppress(asyncio.CancelledError):
                await self._fetching

    def _known(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _start_fetching(self) -> None:
        now = time.monotonic()
        if self._fetching is None and now - self._tried_at >= self._refetch_after:
            self._tried_at = now
            self._fetching = asyncio.create_task(self._refresh(), name="key set")

    async def _refresh(self) -> None:
        try:
            document = await self._fetch()
            keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(document).keys}
            self._keys = {id: key for id, key in keys.items() if key.algorithm_name == self._algorithm}
            self._fetched_at, self._failed = time.monotonic(), False
            self._trouble.over()
        except Exception as error:  # noqa: BLE001 - the boundary of a background job: a foreign server may send anything
            self._failed = True
            self._trouble.met(type(error).__name__)
        finally:
            self._fetching = None

    async def _fetch(self) -> Json:
        body = bytearray()
        async with (
            asyncio.timeout(_TIMEOUT_S),
            httpx2.AsyncClient(timeout=_TIMEOUT_S) as client,
            client.stream("GET", self._url) as answer,
        ):
            answer.raise_for_status()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _MAX_BYTES:
                    raise ValueError("key set too large")
        return orjson.loads(body)
