"""Fetches pages that models name. Any server may be at the other end, and any address in the URL.

Only public addresses are connected to (`executor/outside_client.py`), over http and https, on their usual ports. Each
redirect is checked as the first address was. Nothing of this service or its users is sent but the URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from backend.outside_addresses import OutsideAddresses
from executor.outside_client import is_refused, open_outside_client
from executor.slots import NoSlot, Slots
from executor.web.bodies import ENCODINGS, PIECE, read_body
from executor.web.content_types import Content, content_of, kind_of
from executor.web.extraction import Extracted, Extraction, busy
from executor.web.failures import WebFailure
from executor.web.urls import PORTS, page_url

TOTAL, CONNECT = 15.0, 5.0
"""Seconds for a page with all its redirects, and for connecting once."""
MAX_BYTES = 2_000_000
"""Bytes of a page, after decompression."""
MAX_REDIRECTS = 5
AT_ONCE = 32
"""Pages that one executor fetches at the same time. Others wait, and users take turns."""
WAITS = 30.0
"""Seconds for which a page waits until it is fetched."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ACCEPT = "text/html,application/xhtml+xml,text/plain,application/json,application/pdf;q=0.9,*/*;q=0.1"
_FAILURES = (
    (aiohttp.ClientConnectorDNSError, "not_resolved", "There is no site with this name."),
    (
        (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError),
        "certificate",
        "The certificate of this site is not valid.",
    ),
    (aiohttp.InvalidURL, "invalid_url", "This is not a valid web address."),
    ((aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError), "not_connected", "The site cannot be reached."),
)


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """A page that was fetched. `url` is where its redirects have led to. `cut`: there is more of it."""

    url: str
    status: int
    content_type: str
    text: str
    title: str | None
    cut: bool


@dataclass(frozen=True, slots=True)
class _Fetched:
    url: URL
    status: int
    content: Content
    body: bytes
    cut: bool


class Fetcher:
    """The client of one executor. `ports` are those that URLs may have."""

    def __init__(self, client: aiohttp.ClientSession, ports: Container[int] = PORTS) -> None:
        self._client = client
        self._ports = ports
        self._headers = {
            "user-agent": f"CoPilot/{version('copilot-chat')} (web_fetch)",
            "accept": _ACCEPT,
            "accept-encoding": ENCODINGS,
        }
        self._slots = Slots(AT_ONCE, wait=WAITS)
        self._extraction = Extraction()

    async def fetch(self, url: str, *, extract_text: bool = True, owner: str = "") -> FetchedPage:
        """Returns the page: its main text as Markdown, or with `extract_text=False` its source. Raises WebFailure.

        `owner` is the user or session that wants it. Owners take turns, so one with many pages does not block others.
        """
        target = page_url(url, self._ports)
        try:
            async with self._slots.slot(owner):
                fetched = await self._fetch(target)
                made = await self._read(fetched, extract_text, owner)
        except NoSlot:
            raise busy() from None
        cut = made.cut or fetched.cut
        return FetchedPage(str(fetched.url), fetched.status, fetched.content.media_type, made.text, made.title, cut)

    async def _fetch(self, target: URL) -> _Fetched:
        try:
            async with asyncio.timeout(TOTAL):
                return await self._follow(target)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure_of(error) from error

    async def _follow(self, url: URL) -> _Fetched:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._client.get(url, headers=self._headers, allow_redirects=False) as response:
                location = response.headers.get("location")
                if response.status not in _REDIRECTS or location is None:
                    return await _received(url, response)
            url = page_url(location, self._ports, base=url)
        raise WebFailure("too_many_redirects", f"The address leads on more than {MAX_REDIRECTS} times.")

    async def _read(self, fetched: _Fetched, extract_text: bool, owner: str) -> Extracted:
        kind = kind_of(fetched.content, fetched.body)
        if not fetched.body.strip():
            return Extracted("", None, False)
        if kind == "pdf" and fetched.cut:
            raise _too_large()
        if kind == "html" and not extract_text:
            kind = "text"
        try:
            return await self._extraction.extract(
                kind, fetched.body, charset=fetched.content.charset, url=str(fetched.url), owner=owner
            )
        except WebFailure:
            if fetched.status < HTTPStatus.BAD_REQUEST:
                raise
            return Extracted("", None, False)  # its status is all that can be said


async def _received(url: URL, response: aiohttp.ClientResponse) -> _Fetched:
    """Reads a page. Its body is not read if its type cannot be, or if it is a PDF that is too long."""
    try:
        content = content_of(response.headers.get("content-type", ""))
    except WebFailure:
        if response.status < HTTPStatus.BAD_REQUEST:
            raise
        return _Fetched(url, response.status, Content("", "", "text"), b"", False)
    length = response.headers.get("content-length", "")
    if content.kind == "pdf" and length.isdecimal() and int(length[:20]) > MAX_BYTES:
        raise _too_large()
    encoding = response.headers.get("content-encoding", "")
    body, cut = await read_body(response.content.iter_chunked(PIECE), encoding, MAX_BYTES)
    return _Fetched(url, response.status, content, body, cut)


def _too_large() -> WebFailure:
    return WebFailure("too_large", f"The file has more than {MAX_BYTES // 1_000_000} MB.")


def _failure_of(error: Exception) -> WebFailure:
    if is_refused(error):
        return WebFailure("address_refused", "This address is not public. Only public addresses can be fetched.")
    for kinds, code, words in _FAILURES:
        if isinstance(error, kinds):
            return WebFailure(code, words)
    if isinstance(error, TimeoutError):
        return WebFailure("timeout", f"The page took more than {TOTAL:.0f} s.")
    return WebFailure("not_answered", "The site has given no valid answer.")


@asynccontextmanager
async def open_fetcher(
    addresses: OutsideAddresses | None = None,
    ports: Container[int] = PORTS,
    resolver: AbstractResolver | None = None,
) -> AsyncIterator[Fetcher]:
    """Opens the client of a process. Without `addresses`, which only tests give, it reaches public ones only."""
    addresses = addresses or OutsideAddresses("")
    async with open_outside_client(addresses, AT_ONCE, total=TOTAL, connect=CONNECT, resolver=resolver) as client:
        yield Fetcher(client, ports)


def status_text(status: int) -> str:
    """Returns a status with its phrase, if it has one."""
    return f"{status} {HTTPStatus(status).phrase}" if status in HTTPStatus._value2member_map_ else str(status)
