"""One attempt to deliver: a POST to an address that the user chose, which may be hostile.

The address is checked when the socket is made (`executor/outside_client.py`). Redirects are not followed, the body of
the answer is not read, and nothing of it is kept but its status.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from backend.chat.store.webhooks.deliveries import Failure
from backend.jitter import jitter
from backend.json_client.retry_after import retry_after_of
from backend.outside_addresses import OutsideAddresses
from executor.outside_client import is_refused, open_outside_client

ATTEMPT_LIMIT, CONNECT_LIMIT = 15.0, 5.0
"""Seconds for a whole attempt, and for connecting within it."""
SHORTEST_WAIT, LONGEST_WAIT = 5.0, 4 * 3600.0
"""Seconds between two attempts, without what the endpoint asks for."""
_HELPFUL_STATUSES = frozenset({429, 502, 503, 504})
"""Statuses whose Retry-After is heeded."""
_FAILURES = (
    (aiohttp.ClientConnectorDNSError, Failure.NOT_RESOLVED),
    ((aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError), Failure.CERTIFICATE),
    (aiohttp.InvalidURL, Failure.ADDRESS_REFUSED),
    (aiohttp.ClientConnectorError, Failure.NOT_CONNECTED),
    (TimeoutError, Failure.TIMEOUT),
    ((aiohttp.ClientError, OSError), Failure.NOT_ANSWERED),
)


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """The result of an attempt. It succeeded if `failure` is None. The endpoint asks for `retry_after` seconds."""

    failure: Failure | None
    answer: int | None = None
    retry_after: float = 0.0


def wait_after(elapsed: float, retry_after: float) -> float:
    """Returns the seconds until the next attempt after `elapsed` seconds of attempts: about as long again.

    The waits grow by a random factor below two, so that endpoints that failed together are not tried together. What the
    endpoint asks for is heeded up to LONGEST_WAIT: otherwise one wrong date would stop its events without end.
    """
    backoff = min(max(elapsed, SHORTEST_WAIT), LONGEST_WAIT)
    return max(jitter(backoff), min(retry_after, LONGEST_WAIT))


@asynccontextmanager
async def open_client(addresses: OutsideAddresses, at_once: int) -> AsyncIterator[aiohttp.ClientSession]:
    """Opens the client of a process for up to `at_once` attempts at a time."""
    async with open_outside_client(addresses, at_once, total=ATTEMPT_LIMIT, connect=CONNECT_LIMIT) as client:
        yield client


async def post_event(client: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> AttemptResult:
    """Posts the message. Takes ATTEMPT_LIMIT seconds at most."""
    try:
        async with client.post(url, data=body, headers=headers, allow_redirects=False) as response:
            return _judge(response.status, response.headers.get("retry-after"))
    except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
        return AttemptResult(_failure_of(error))


def _judge(status: int, retry_after: str | None) -> AttemptResult:
    if 200 <= status < 300:
        return AttemptResult(None, status)
    if status == 410:
        return AttemptResult(Failure.GONE, status)
    if 300 <= status < 400:
        return AttemptResult(Failure.REDIRECTED, status)
    wait = retry_after_of({"retry-after": retry_after or ""}) if status in _HELPFUL_STATUSES else None
    return AttemptResult(Failure.REFUSED, status, wait or 0.0)


def _failure_of(error: Exception) -> Failure:
    if is_refused(error):
        return Failure.ADDRESS_REFUSED
    return next((failure for kinds, failure in _FAILURES if isinstance(error, kinds)), Failure.NOT_ANSWERED)
