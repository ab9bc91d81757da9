"""The web client of blocks. It connects to permitted addresses only, at every redirect, too."""

from __future__ import annotations

import asyncio
import codecs
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from backend.outside_addresses import OutsideAddresses
from examples.agent_platform.blocks.block import Answer, BlockFailed

if TYPE_CHECKING:
    import aiohttp

MAX_BYTES = 1_000_000
SECONDS, CONNECT_SECONDS = 20.0, 5.0
AT_ONCE, MAX_REDIRECTS = 20, 5
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_FORBIDDEN_HEADERS = {"host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer"}


_ENCODING = re.compile(
    r"ascii|utf-8|utf-16(-[lb]e)?|iso8859-\d{1,2}|cp(125\d|866|874|932|949)|koi8-[ru]|gb2312|gbk|gb18030|big5|euc_(jp|kr)"
    r"|shift_jis|iso2022_jp|mac-(roman|cyrillic)"
)
"""The encodings that are decoded: Python has others that are slow, or are no encodings of text."""


class NotPermitted(OSError):
    """The address is not public, and no option permits it."""


class WebClient:
    """Opens its connections lazily: most runs need none."""

    def __init__(self, addresses: OutsideAddresses, stack: AsyncExitStack) -> None:
        self._addresses = addresses
        self._stack = stack
        self._opened: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """Sends one request and follows redirects of GET and HEAD. Raises BlockFailed."""
        import aiohttp

        session = await self._session()
        if not all(_NAME.fullmatch(name) and value.isprintable() for name, value in headers.items()):
            raise BlockFailed("a header has a name or a value that is not valid")
        follow = method in ("GET", "HEAD")
        kept = {name: value for name, value in headers.items() if name.lower() not in _FORBIDDEN_HEADERS}
        try:
            async with session.request(
                method, url, headers=kept, data=body, allow_redirects=follow, max_redirects=MAX_REDIRECTS
            ) as response:
                content, encoding = await _read(response), readable_encoding(response.charset or "")
                return Answer(response.status, response.content_type, content.decode(encoding, "replace"))
        except NotPermitted:
            raise BlockFailed("this address is not permitted") from None
        except (aiohttp.ClientError, OSError, ValueError, TypeError) as error:  # TimeoutError is an OSError
            raise BlockFailed(_sentence(error)) from None

    async def _session(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._opened is None:
                import aiohttp

                connector = aiohttp.TCPConnector(
                    limit=AT_ONCE, use_dns_cache=False, force_close=True, socket_factory=self._socket
                )
                self._opened = await self._stack.enter_async_context(
                    aiohttp.ClientSession(
                        connector=connector,
                        cookie_jar=aiohttp.DummyCookieJar(),
                        timeout=aiohttp.ClientTimeout(total=SECONDS, connect=CONNECT_SECONDS),
                        headers={"user-agent": "copilot-agent-platform", "accept-encoding": "identity"},
                        auto_decompress=False,
                        trust_env=False,
                    )
                )
            return self._opened

    def _socket(self, found: Any) -> socket.socket:
        """Makes the socket for an address that a name was resolved to, if it is permitted."""
        family, kind, protocol, _, address = found
        if not self._addresses.permit(str(address[0])):
            raise NotPermitted
        return socket.socket(family, kind, protocol)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BlockFailed("the server compressed its answer, which was not accepted")
    content = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        content += chunk
        if len(content) > MAX_BYTES:
            raise BlockFailed(f"the answer is larger than {MAX_BYTES} bytes")
    return bytes(content)


def readable_encoding(label: str) -> str:
    """Returns the name of the encoding that a server names; UTF-8 if it is none of text."""
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return "utf-8"
    return name if _ENCODING.fullmatch(name) else "utf-8"


def _sentence(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NotPermitted):
            return "this address is not permitted"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, TimeoutError):
        return f"the server did not answer within {SECONDS:.0f} seconds"
    return f"the request did not succeed ({type(error).__name__})"


@asynccontextmanager
async def open_web(private_networks: str) -> AsyncIterator[WebClient]:
    async with AsyncExitStack() as stack:
        yield WebClient(OutsideAddresses(private_networks), stack)
