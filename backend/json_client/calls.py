"""HTTP calls to services that answer with JSON: the client, its limits, the retries, and the reading of a body."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import httpx2

from backend.config import Settings
from backend.jitter import jitter
from backend.json_client.failures import BodyCompressed, BodyTooLarge, CallFailure

_HEADERS = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
_Answer = TypeVar("_Answer")
_Failure = TypeVar("_Failure", bound=CallFailure)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Limits of a call. Times are in seconds. `total` covers all tries and the waits between them."""

    total: float
    tries: int = 4
    connect: float = 10
    backoff: float = 0.5
    """The wait before the second try. It doubles before each further one, up to `longest_backoff`."""
    longest_backoff: float = 8
    longest_wait: float = 60
    """The longest wait for a Retry-After."""

    def backoff_after(self, number: int) -> float:
        """Returns the seconds to wait after try `number`, counted from 1, less a random part of up to half."""
        return jitter(min(self.backoff * 2.0 ** (number - 1), self.longest_backoff))


async def call_repeatedly(
    service: str,
    limits: CallLimits,
    attempt: Callable[[], Awaitable[_Answer]],
    failures: type[_Failure],
    wait_after: Callable[[_Failure, int], float | None],
) -> _Answer:
    """Returns the answer of the first attempt that succeeds. Raises the failure of the last one.

    `wait_after` gets a failure and the number of its try, from 1. It returns the seconds until the next try, or None if
    another try is of no use. Raises TimeoutError after `limits.total`. `service` names it in the log.
    """
    async with asyncio.timeout(limits.total) as limit:
        for number in count(1):
            try:
                return await attempt()
            except failures as failure:
                wait = wait_after(failure, number)
                late = wait is None or asyncio.get_running_loop().time() + wait >= (limit.when() or 0.0)
                if wait is None or late or number >= limits.tries:
                    raise
                logger.info("repeating the call to %s in %.1f s: %s", service, wait, failure.note)
            await asyncio.sleep(wait)
    raise AssertionError("the last try returns or raises")


async def read_body(response: httpx2.Response, most: int) -> bytes:
    """Returns the body, of at most `most` bytes. Raises BodyTooLarge or BodyCompressed.

    A few compressed bytes could become gigabytes.
    """
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BodyCompressed
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > most:
            raise BodyTooLarge
    return bytes(body)


@asynccontextmanager
async def open_json_client(
    base_url: httpx2.URL | str, limits: CallLimits, at_once: int, headers: dict[str, str] | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    """Opens a client for up to `at_once` calls at a time. It follows no redirects and asks no proxy."""
    async with httpx2.AsyncClient(
        base_url=base_url,
        headers={**_HEADERS, **(headers or {})},
        timeout=httpx2.Timeout(limits.total, connect=limits.connect),
        limits=httpx2.Limits(max_connections=at_once, max_keepalive_connections=8),
        follow_redirects=False,
        trust_env=False,
    ) as client:
        yield client


def webhook_is_closed(settings: Settings) -> bool:
    """Returns True if the API will refuse every outcome that a service posts, because no key is set."""
    return settings.chat_internal_api_key is None and settings.chat_webhook_secret is None
