"""An MCP server over streamable HTTP. An HTTP transport of this project lies below the transport of the SDK.

With the SDK's transport alone, a failed request ends all others of the connection, an invalid answer leaves its call
waiting, and a JSON body of any size is read whole. Here each of these faults costs one call only.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson
from mcp.client.streamable_http import streamable_http_client
from mcp_types import JSONRPCError, JSONRPCMessage, RequestId

from backend.logs import why_away
from executor.mcp.bodies import EventsBody, JsonBody, dumped, plain_pieces
from executor.mcp.failures import LastFailure, Reason, ReasonKind, line_for_log
from executor.mcp.messages import MAX_MESSAGE_BYTES, ClientErrorCode, decode, own_error
from executor.mcp.oauth.challenge import challenge_of
from executor.mcp.oauth.transport import Bearer, BearerTransport, SignInServerAway
from executor.mcp.server_entry import HttpServer

CONNECT_LIMIT = 10.0  # seconds
SILENCE_BEYOND = 30.0
"""Seconds beyond the limit of a call that an answer may be silent before its connection is closed."""
MAX_CONNECTIONS = 128
MAX_ERROR_BYTES = 65_536
"""Bytes of a body that are read when the status is an error."""
SESSION = "mcp-session-id"
_JSON = {"content-type": "application/json"}
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_LOST_STATUSES = frozenset({502, 503, 504})
"""Statuses that gateways give too. Whether the request ran is unknown."""
_REFUSALS = {
    401: (
        ReasonKind.UNAUTHORIZED,
        "it asks for a login (HTTP status 401): set headers.Authorization or auth in the file",
    ),
    403: (ReasonKind.FORBIDDEN, "it forbids the request (HTTP status 403)"),
    404: (ReasonKind.NOT_FOUND, "it has nothing at this URL (HTTP status 404)"),
    405: (
        ReasonKind.NOT_ALLOWED,
        "it does not take POST (HTTP status 405): perhaps it only speaks the old SSE transport",
    ),
    421: (ReasonKind.FORBIDDEN, "it does not serve this host name (HTTP status 421)"),
    429: (ReasonKind.RATE_LIMITED, "it limits the rate of requests (HTTP status 429)"),
}
"""Statuses that say that the request did not run."""


@asynccontextmanager
async def reach_server(
    server: HttpServer, call_limit: float, last_failure: LastFailure, bearer: Bearer | None, more: Mapping[str, str]
) -> AsyncIterator[tuple[Any, Any]]:
    """Yields the streams from and to the server. With `bearer`, requests have the access token of a user.

    `more` are headers beside those of the file.
    """
    headers = {**{name: value.get_secret_value() for name, value in server.headers.items()}, **more}
    async with (
        httpx2.AsyncClient(
            headers={**headers, "accept-encoding": "identity"},
            timeout=httpx2.Timeout(CONNECT_LIMIT, read=call_limit + SILENCE_BEYOND),
            transport=RelayTransport(last_failure, server.secrets, bearer),
        ) as client,
        streamable_http_client(
            server.url.get_secret_value(), http_client=client, max_sse_event_size=2 * MAX_MESSAGE_BYTES
        ) as (received, sent),
    ):
        yield received, sent


class RelayTransport(httpx2.AsyncBaseTransport):
    """Sends requests. Whatever happens to one, the SDK gets a JSON-RPC answer to it."""

    def __init__(self, last_failure: LastFailure, secrets: list[str], bearer: Bearer | None = None) -> None:
        limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=16, keepalive_expiry=15)
        inner = httpx2.AsyncHTTPTransport(limits=limits)
        self._inner: httpx2.AsyncBaseTransport = inner if bearer is None else BearerTransport(inner, bearer)
        self._signs_in = bearer is not None
        self._last_failure = last_failure
        self._secrets = secrets
        self._open: dict[RequestId, asyncio.Event] = {}

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        message = orjson.loads(request.content) if request.method == "POST" else {}
        number = message.get("id") if "method" in message else None
        if number is None:
            return await self._tell(request, message)
        stop = self._open[number] = asyncio.Event()
        try:
            response = await _unless(stop, self._inner.handle_async_request(request))
        except httpx2.TransportError as error:
            self._open.pop(number, None)
            return self._failed(request, number, error)
        except BaseException:
            self._open.pop(number, None)
            raise
        if response is None:  # cancelled by us
            self._open.pop(number, None)
            return _answer(request, own_error(number, ClientErrorCode.LOST, "cancelled"))
        return await self._checked(request, response, number, stop)

    async def _tell(self, request: httpx2.Request, message: dict[str, Any]) -> httpx2.Response:
        """Sends a message that gets no answer: a notification, an answer to the server, or a request for events."""
        if request.method != "POST":
            response = await self._inner.handle_async_request(request)
            if request.method == "GET" and _is(response, "text/event-stream"):
                response.stream = EventsBody(plain_pieces(response), None, asyncio.Event(), lambda: None)
            return response
        cancelled = message.get("method") == "notifications/cancelled"
        if cancelled and (stop := self._open.get(message.get("params", {}).get("requestId"))) is not None:
            stop.set()  # closes the call's connection, which tells a server without sessions of the cancel
        return await self._posted(request)

    async def _posted(self, request: httpx2.Request) -> httpx2.Response:
        """Sends a message without an answer, and waits up to CONNECT_LIMIT: the SDK sends nothing else meanwhile."""
        status = 202
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                response = await self._inner.handle_async_request(request)
                status = response.status_code
                try:
                    await _read_some(plain_pieces(response))  # only then can the connection be used again
                finally:
                    await response.aclose()
        except (httpx2.TransportError, TimeoutError):
            pass
        return httpx2.Response(status, request=request)

    def _failed(self, request: httpx2.Request, number: RequestId, error: httpx2.TransportError) -> httpx2.Response:
        self._last_failure.why = why = _why_not_reached(error)
        code = ClientErrorCode.NOT_SENT if isinstance(error, _NOT_SENT) else ClientErrorCode.LOST
        return _answer(request, own_error(number, code, why.words))

    async def _checked(
        self, request: httpx2.Request, response: httpx2.Response, number: RequestId, stop: asyncio.Event
    ) -> httpx2.Response:
        def done() -> None:
            if self._open.get(number) is stop:
                del self._open[number]

        body = plain_pieces(response)
        if response.status_code >= 400:
            done()
            return await self._refused(request, response, number, body)
        if response.has_redirect_location:
            done()
            await response.aclose()
            self._last_failure.why = why = Reason(
                f"it redirects (HTTP status {response.status_code})", ReasonKind.REDIRECTED
            )
            return _answer(request, own_error(number, ClientErrorCode.REFUSED, why.words, response.status_code))
        self._last_failure.why = None
        if _is(response, "text/event-stream"):
            response.stream = EventsBody(body, number, stop, done)
        elif _is(response, "application/json"):
            response.stream = JsonBody(body, number, stop, done)
        else:
            done()
            await response.aclose()
            if response.status_code == 202:
                return response
            self._last_failure.why = why = Reason("it does not answer as an MCP server does", ReasonKind.PROTOCOL)
            return _answer(request, own_error(number, ClientErrorCode.INVALID_ANSWER, why.words))
        return response

    async def _refused(
        self, request: httpx2.Request, response: httpx2.Response, number: RequestId, body: httpx2.AsyncByteStream
    ) -> httpx2.Response:
        status = response.status_code
        error = await _error_in(body, number)
        await response.aclose()
        if request.headers.get(SESSION) and (status == 404 or _names_no_session(status, error)):
            return _answer(request, own_error(number, ClientErrorCode.SESSION_LOST, "it does not know the session"))
        if self._signs_in and (challenge := challenge_of(status, response.headers)) is not None:
            self._last_failure.why = why = Reason("it asks the user to sign in", ReasonKind.UNAUTHORIZED)
            self._last_failure.challenge = challenge.as_json()
            return _answer(request, own_error(number, ClientErrorCode.SIGN_IN, why.words, challenge.as_json()))
        if status in _REFUSALS and not (status == 404 and error is not None and error.id == number):
            reason, words = _REFUSALS[status]
            said = f"; it says: {line_for_log(error.error.message, self._secrets)}" if error is not None else ""
            self._last_failure.why = Reason(words + said + _sign_in(response), reason)
            return _answer(request, own_error(number, ClientErrorCode.REFUSED, self._last_failure.why.words, status))
        if error is not None:
            return _answer(request, JSONRPCError(jsonrpc="2.0", id=number, error=error.error))
        self._last_failure.why = why = Reason(f"it answers with HTTP status {status}", ReasonKind.SERVER_ERROR)
        code = ClientErrorCode.LOST if status in _LOST_STATUSES else ClientErrorCode.INVALID_ANSWER
        return _answer(request, own_error(number, code, why.words))


async def _unless(stop: asyncio.Event, sending: Awaitable[httpx2.Response]) -> httpx2.Response | None:
    """Returns the response of `sending`. Cancels it and returns None if `stop` is set first."""
    job, stopped = asyncio.ensure_future(sending), asyncio.ensure_future(stop.wait())
    returned = False
    try:
        await asyncio.wait({job, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            response = job.result()
            returned = True
            return response
        return None
    finally:
        stopped.cancel()
        if not job.done():
            job.cancel()
            await asyncio.wait({job})
        if not returned and not job.cancelled() and job.exception() is None:  # a cancel came in the same moment
            await job.result().aclose()


async def _error_in(body: httpx2.AsyncByteStream, number: RequestId) -> JSONRPCError | None:
    """Returns the JSON-RPC error in a body; its id is None if the server did not read the request's."""
    try:
        async with asyncio.timeout(CONNECT_LIMIT):
            text = await _read_some(body)
    except (httpx2.TransportError, TimeoutError):
        return None
    return next((message for message in decode(text, {number}) if isinstance(message, JSONRPCError)), None)


async def _read_some(body: httpx2.AsyncByteStream) -> bytes:
    """Returns the body, or nothing if it is over MAX_ERROR_BYTES."""
    text = b""
    async for piece in body:
        text += piece
        if len(text) > MAX_ERROR_BYTES:
            return b""
    return text


def _names_no_session(status: int, error: JSONRPCError | None) -> bool:
    """Returns True if this is the answer of the TypeScript SDK's examples to an unknown session."""
    return status == 400 and error is not None and error.id is None and "session" in error.error.message.lower()


def _sign_in(response: httpx2.Response) -> str:
    """Returns the address for signing in that a 401 names, or an empty string."""
    challenge = response.headers.get("www-authenticate", "")
    _, found, rest = challenge.partition('resource_metadata="')
    if not found or response.status_code != 401:
        return ""
    try:
        place = httpx2.URL(rest.partition('"')[0]).copy_with(userinfo=b"", query=None, fragment=None)
    except (httpx2.InvalidURL, ValueError):
        return ""
    return f"; it describes its sign-in at {str(place)[:200]}"


def _why_not_reached(error: httpx2.TransportError) -> Reason:
    if isinstance(error, SignInServerAway):
        return Reason(str(error), ReasonKind.UNREACHABLE)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return Reason(f"TLS fails: {cause.reason or type(cause).__name__}", ReasonKind.TLS)
        cause = cause.__cause__ or cause.__context__
    if "SSL" in str(error):
        return Reason("TLS fails", ReasonKind.TLS)
    words = why_away(error)
    if words == "ConnectError":
        words = "its host name is not known, or it cannot be reached"
    return Reason(words, ReasonKind.SLOW if isinstance(error, httpx2.TimeoutException) else ReasonKind.UNREACHABLE)


def _answer(request: httpx2.Request, message: JSONRPCMessage) -> httpx2.Response:
    return httpx2.Response(200, headers=_JSON, content=dumped(message), request=request)


def _is(response: httpx2.Response, kind: str) -> bool:
    return bool(response.headers.get("content-type", "").lower().startswith(kind))
