"""HTTP requests to authorization servers, whose addresses tool servers name: hostile until the opposite is known.

The address is checked when the socket is made, after the name was resolved. Redirects are not followed, cookies and
proxies of the environment are not used, and a body is read up to a limit.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from backend.chat.oauth.values import NotReached
from backend.outside_addresses import OutsideAddresses

LIMIT, CONNECT_LIMIT = 10.0, 5.0
"""Seconds for a whole request, and for connecting within it."""
MAX_BODY = 262_144
PRIVATE = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,127.0.0.0/8,::1/128,fc00::/7"
"""Networks in which the sign-in of a private server may be. Link-local ones hold the secrets of cloud machines."""


class _AddressRefused(OSError):
    """The address is not one that may be reached."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer of an outside server. `body` is empty if it was longer than MAX_BODY."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class OutsideClient:
    """A client for authorization servers. With `private`, it may reach private networks, even without TLS."""

    def __init__(self, client: aiohttp.ClientSession, *, private: bool) -> None:
        self._client = client
        self._private = private

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Raises NotReached."""
        return await self._send("GET", url, headers=dict(headers or {}))

    async def post(self, url: str, *, headers: Mapping[str, str] | None = None, **body: Any) -> HttpAnswer:
        """Posts `data` or `json`. Raises NotReached."""
        return await self._send("POST", url, headers=dict(headers or {}), **body)

    async def _send(self, method: str, url: str, **request: Any) -> HttpAnswer:
        try:
            if not self._private and urlsplit(url).scheme != "https":
                raise NotReached("its URL does not begin with https://")
            async with self._client.request(method, url, allow_redirects=False, **request) as response:
                body = await response.content.read(MAX_BODY + 1)
                while not response.content.at_eof() and len(body) <= MAX_BODY:
                    body += await response.content.read(MAX_BODY + 1 - len(body))
                headers = {name.lower(): value for name, value in response.headers.items()}
                return HttpAnswer(response.status, headers, body if len(body) <= MAX_BODY else b"")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            refused = isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _AddressRefused)
            raise NotReached("its address is private" if refused else "it cannot be reached") from None


@asynccontextmanager
async def open_outside_client(*, private: bool) -> AsyncIterator[OutsideClient]:
    """Opens a client for a few requests."""
    addresses = OutsideAddresses(PRIVATE if private else "")

    def checked(found: Any) -> socket.socket:
        family, kind, proto, _, address = found
        if not addresses.permit(str(address[0]).partition("%")[0]):
            raise _AddressRefused("this address is not permitted")
        return socket.socket(family, kind, proto)

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(use_dns_cache=False, force_close=True, socket_factory=checked),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=LIMIT, connect=CONNECT_LIMIT),
        headers={"user-agent": "CoPilot/1", "accept": "application/json", "accept-encoding": "identity"},
        auto_decompress=False,  # a few bytes could become very many
        trust_env=False,
    ) as client:
        yield OutsideClient(client, private=private)
