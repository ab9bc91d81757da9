"""The outermost layer of the API: request ids, the one log line of a request, hosts and origins, errors, and streams.

A route returns an `EventStream` as its response. The middleware runs that stream after FastAPI has returned; otherwise
a stream that is open for hours would keep all of FastAPI's frames and scope in memory.
"""

from __future__ import annotations

import logging
import time
import uuid

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.cors import Cors, is_preflight
from backend.api.metrics import ApiMetrics
from backend.api.origins import Origins
from backend.api.problems import error_response
from backend.api.sse import HANDOVER, EventStream
from backend.logs import bound

_CLIENT_GONE = 499
_UNLOGGED_PATHS = frozenset({"/metrics", "/health", "/health/live", "/health/ready"})
_SECRET_PATHS = ("/s/", "/api/chat/shared/")
"""Paths that have the secret of a share link. The log has their route instead."""
_FINISHED_SCOPE_KEYS = (
    "fastapi_inner_astack", "fastapi_function_astack", "fastapi_middleware_astack", "fastapi", HANDOVER,
)  # fmt: skip
"""Members of the ASGI scope that a stream no longer needs when it runs."""
logger = logging.getLogger(__name__)


class _Exchange:
    """One request and the headers and status of its response."""

    __slots__ = ("begun", "headers", "request_id", "send", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self.send = send
        self.request_id = request_id
        self.headers: list[tuple[bytes, bytes]] = [(b"x-request-id", request_id.encode())]
        self.begun = time.perf_counter()
        self.status = 0

    async def send_with_headers(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self.headers]
        await self.send(message)


class RequestMiddleware:
    def __init__(self, app: ASGIApp, prefix: str, cors: Cors, origins: Origins, metrics: ApiMetrics) -> None:
        self._app = app
        self._prefix = prefix
        self._cors = cors
        self._origins = origins
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(send, uuid.uuid4().hex)
        with bound(request_id=exchange.request_id):
            stream = await self._answer(scope, receive, exchange)
            if stream is None or stream.starts_at_once:
                self._record(scope, exchange)
            if stream is not None:
                for key in _FINISHED_SCOPE_KEYS:
                    scope.pop(key, None)
                await self._run(stream, scope, receive, exchange)
                if not stream.starts_at_once:
                    exchange.status = stream.status_code
                    self._record(scope, exchange)

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> EventStream | None:
        """Answers the request, or returns the stream that is still to be sent as the answer."""
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        scope[HANDOVER] = None
        try:
            request = Headers(scope=scope)
            exchange.headers += self._cors.headers(scope["path"], request)
            self._origins.check_host(scope["path"], request)
            if is_preflight(scope["method"], request):
                exchange.headers += self._cors.preflight(request)
                await Response(status_code=204)(scope, receive, exchange.send_with_headers)
            else:
                self._origins.check_origin(scope["path"], request)
                await self._app(scope, receive, exchange.send_with_headers)
        except ClientDisconnect:
            exchange.status = _CLIENT_GONE
        except Exception as error:  # the outermost boundary: an unexpected error is logged and answered with 500
            if exchange.status not in (0, 500):  # 500: the error handler has already answered
                raise
            if not exchange.status:
                answer = error_response(error, exchange.request_id, scope["path"])
                await answer(scope, receive, exchange.send_with_headers)
        stream: EventStream | None = scope[HANDOVER]
        if stream is not None:
            exchange.status = stream.status_code
        return stream

    async def _run(self, stream: EventStream, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        stream.raw_headers += exchange.headers
        try:
            await stream.run(scope, receive, exchange.send)
        except ConnectionAbortedError:
            raise
        except Exception:
            logger.exception("stream failed")
            raise

    def _route_of(self, scope: Scope) -> str:
        """Returns the path's template, so that callers cannot create new metric labels."""
        route = scope.get("route")
        if route is None:
            return "unknown"
        return (self._prefix if scope["path"].startswith(self._prefix) else "") + str(route.path)

    def _record(self, scope: Scope, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.begun
        self._metrics.count_request(scope["method"], self._route_of(scope), exchange.status, seconds)
        if scope["path"] not in _UNLOGGED_PATHS:
            path = self._route_of(scope) if scope["path"].startswith(_SECRET_PATHS) else scope["path"]
            fields = {"method": scope["method"], "path": path, "status": exchange.status}
            logger.info("request", extra=fields)
