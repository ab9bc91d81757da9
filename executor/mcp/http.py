"""An MCP server over streamable HTTP: the SDK's transport, with bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from executor.mcp.failures import ServerGone
from executor.mcp.servers_file import HttpServer
from executor.mcp.stdio import MAX_MESSAGE_BYTES

CONNECT_LIMIT = 10.0
SILENCE_BEYOND = 30.0
"""How much longer than a call an answer may be silent, before its connection is given up."""


@asynccontextmanager
async def reach_server(server: HttpServer, call_limit: float) -> AsyncIterator[tuple[Any, Any]]:
    """The streams to that server. Raises what httpx2 raises, in a group, when it cannot be reached any more."""
    headers = {name: value.get_secret_value() for name, value in server.headers.items()}
    async with (
        httpx2.AsyncClient(
            headers={**headers, "accept-encoding": "identity"},
            timeout=httpx2.Timeout(CONNECT_LIMIT, read=call_limit + SILENCE_BEYOND),
            event_hooks={"response": [_bound]},
        ) as client,
        streamable_http_client(
            server.url.get_secret_value(), http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES
        ) as (received, sent),
    ):
        yield received, sent


async def _bound(response: httpx2.Response) -> None:
    """The SDK bounds events, and reads any other body whole, however long it is and however small it was packed."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ServerGone("it compresses its answers")
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _BoundedBody(response.stream)


class _BoundedBody(httpx2.AsyncByteStream):
    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        room = MAX_MESSAGE_BYTES
        async for piece in self._body:
            room -= len(piece)
            if room < 0:
                raise httpx2.StreamError(f"the answer has more than {MAX_MESSAGE_BYTES} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()
