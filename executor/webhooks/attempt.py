"""One attempt to deliver: a POST to an address that the user chose, which may be hostile.

The address is checked when the socket is made, after the name was resolved. Redirects are not followed, cookies and
proxies of the environment are not used, the body of the answer is not read, and nothing of it is kept but its status.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from backend.chat.store.webhooks.deliveries import Failure
from backend.jitter import jitter
from backend.outside_addresses import OutsideAddresses
from executor.llm.failures import retry_after_of

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


class _AddressRefused(OSError):
    """The address is not one that webhooks may reach."""


@dataclass(frozen=True, slots=True)
class Attempted:
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


class _OwnThreads(AbstractResolver):
    """Resolves names in threads of its own: a slow name server of one user must not block the names of others."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for kind, _, proto, _, address in await loop.run_in_executor(self._threads, ask)
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def open_client(addresses: OutsideAddresses, at_once: int) -> AsyncIterator[aiohttp.ClientSession]:
    """Opens the client of a process for up to `at_once` attempts at a time."""
    resolver = _OwnThreads(2 * at_once)
    connector = aiohttp.TCPConnector(
        limit=at_once,
        resolver=resolver,
        use_dns_cache=False,
        force_close=True,
        socket_factory=_checking(addresses),
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=ATTEMPT_LIMIT, connect=CONNECT_LIMIT),
        auto_decompress=False,
        trust_env=False,
    ) as client:
        try:
            yield client
        finally:
            await resolver.close()


def _checking(addresses: OutsideAddresses) -> Callable[[Any], socket.socket]:
    def make(found: Any) -> socket.socket:
        family, kind, proto, _, address = found
        if not addresses.permit(str(address[0])):
            raise _AddressRefused("this address is not permitted")
        return socket.socket(family, kind, proto)

    return make


async def attempt(client: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> Attempted:
    """Posts the message. Takes ATTEMPT_LIMIT seconds at most."""
    try:
        async with client.post(url, data=body, headers=headers, allow_redirects=False) as response:
            return _judge(response.status, response.headers.get("retry-after"))
    except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
        return Attempted(_failure_of(error))


def _judge(status: int, retry_after: str | None) -> Attempted:
    if 200 <= status < 300:
        return Attempted(None, status)
    if status == 410:
        return Attempted(Failure.GONE, status)
    if 300 <= status < 400:
        return Attempted(Failure.REDIRECTED, status)
    wait = retry_after_of({"retry-after": retry_after or ""}) if status in _HELPFUL_STATUSES else None
    return Attempted(Failure.REFUSED, status, wait or 0.0)


def _failure_of(error: Exception) -> Failure:
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _AddressRefused):
        return Failure.ADDRESS_REFUSED
    return next((failure for kinds, failure in _FAILURES if isinstance(error, kinds)), Failure.NOT_ANSWERED)
