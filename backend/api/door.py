"""The outermost layer: a request's id, its one log line, CORS, the last catch, and streams.

A route answers with an `EventStream` and returns; the door runs it when all of FastAPI's frames are gone, which a
stream that is open for hours would otherwise keep.
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
from backend.api.metrics import Metrics
from backend.api.problems import problem_response
from backend.api.sse import HANDOVER, EventStream
from backend.logs import bound

_CLIENT_GONE = 499
_QUIET = frozenset({"/metrics", "/health", "/health/live", "/health/ready"})
_DONE_WITH = ("fastapi_inner_astack", "fastapi_function_astack", "fastapi_middleware_astack", "fastapi", HANDOVER)
logger = logging.getLogger(__name__)


class _Visit:
    """One request on its way through."""

    __slots__ = ("begun", "headers", "request_id", "send", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self.send = send
        self.request_id = request_id
        self.headers: list[tuple[bytes, bytes]] = [(b"x-request-id", request_id.encode())]
        self.begun = time.perf_counter()
        self.status = 0

    async def send_marked(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self.headers]
        await self.send(message)


class Door:
    def __init__(self, app: ASGIApp, prefix: str, cors: Cors, metrics: Metrics) -> None:
        self._app = app
        self._prefix = prefix
        self._cors = cors
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = _Visit(send, uuid.uuid4().hex)
        with bound(request_id=visit.request_id):
            stream = await self._answer(scope, receive, visit)
            self._record(scope, visit)
            if stream is not None:
                for key in _DONE_WITH:
                    scope.pop(key, None)
                await self._run(stream, scope, receive, visit)

    async def _answer(self, scope: Scope, receive: Receive, visit: _Visit) -> EventStream | None:
        """Answers, or returns the stream that is to be the answer."""
        scope.setdefault("state", {})["request_id"] = visit.request_id
        scope[HANDOVER] = None
        try:
            request = Headers(scope=scope)
            visit.headers += self._cors.headers(request)
            if is_preflight(scope["method"], request):
                visit.headers += self._cors.preflight(request)
                await Response(status_code=204)(scope, receive, visit.send_marked)
            else:
                await self._app(scope, receive, visit.send_marked)
        except ClientDisconnect:
            visit.status = _CLIENT_GONE
        except Exception as error:  # the last boundary: what nobody expected is logged, and said as a 500
            if visit.status not in (0, 500):  # 500: it was answered already
                raise
            if not visit.status:
                await problem_response(error, visit.request_id)(scope, receive, visit.send_marked)
        stream: EventStream | None = scope[HANDOVER]
        if stream is not None:
            visit.status = stream.status_code
        return stream

    async def _run(self, stream: EventStream, scope: Scope, receive: Receive, visit: _Visit) -> None:
        stream.raw_headers += visit.headers
        try:
            await stream.run(scope, receive, visit.send)
        except ConnectionAbortedError:
            raise
        except Exception:
            logger.exception("stream failed")
            raise

    def _route_of(self, scope: Scope) -> str:
        """The path's template: a label must not grow with what callers send."""
        route = scope.get("route")
        if route is None:
            return "unknown"
        return (self._prefix if scope["path"].startswith(self._prefix) else "") + str(route.path)

    def _record(self, scope: Scope, visit: _Visit) -> None:
        seconds = time.perf_counter() - visit.begun
        self._metrics.count_request(scope["method"], self._route_of(scope), visit.status, seconds)
        if scope["path"] not in _QUIET:
            members = {"method": scope["method"], "path": scope["path"], "status": visit.status}
            logger.info("request", extra=members)
