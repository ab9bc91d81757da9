"""The HTTP client for addresses that users or models name, which may be hostile.

The address is checked when the socket is made: after the name was resolved, after an address in the URL was read, and
again for each connection. So the checked address is the one that is connected to.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from backend.outside_addresses import OutsideAddresses


class AddressRefused(OSError):
    """The address is not one that may be reached."""


class ThreadedResolver(AbstractResolver):
    """Resolves names in threads of its own: a slow name server of one user must not block the names of others."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="outside-names")

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
async def open_outside_client(
    addresses: OutsideAddresses, at_once: int, *, total: float, connect: float, resolver: AbstractResolver | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """Opens a client for up to `at_once` requests at a time; a request takes `total` seconds at most.

    It uses no cookies, no proxies of the environment and no connection twice, and leaves compressed bodies as they are.
    """
    resolver = resolver or ThreadedResolver(2 * at_once)
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
        timeout=aiohttp.ClientTimeout(total=total, connect=connect),
        auto_decompress=False,
        trust_env=False,
    ) as client:
        try:
            yield client
        finally:
            await resolver.close()


def is_refused(error: BaseException) -> bool:
    """Returns True if a request has failed because its address may not be reached."""
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, AddressRefused)


def _checking(addresses: OutsideAddresses) -> Callable[[Any], socket.socket]:
    def make(found: Any) -> socket.socket:
        family, kind, proto, _, address = found
        if not addresses.permit(str(address[0])):
            raise AddressRefused("this address is not permitted")
        return socket.socket(family, kind, proto)

    return make
