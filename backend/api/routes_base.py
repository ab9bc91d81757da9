"""The route classes, which check every request in the same order.

The order is: route, size, authentication, content type, JSON, schema. The endpoint then checks existence and ownership,
and at last the state. FastAPI validates bodies before it calls dependencies, so the route class does the first steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastapi import APIRouter, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from starlette.responses import Response

from backend.api.auth import Identity
from backend.api.body_memory import VALUE_BYTES, BodyLease
from backend.api.deadline import answered_within
from backend.api.json_body import load_json
from backend.api.json_meter import JsonMeter
from backend.api.request_body import check_content_type, read_body, too_large
from backend.api.state import ApiState, address_of, state_of
from backend.chat.models import MAX_DEPTH, Caller, Json
from backend.config import Settings
from backend.errors import InvalidUnicode, UnknownField

MAX_LISTED = 10
MAX_VALUES = 10_000
"""Values that a usual body may have. A body with as many wrong fields costs the event loop some 50 ms."""
MAX_INLINE_BYTES, MAX_INLINE_VALUES = 1 << 18, 2_000
"""A larger body is parsed in a thread, so that it blocks the event loop for no more than a few milliseconds."""


class _ReadRequest(Request):
    """A request whose body has been read and strictly parsed."""

    has_value = False
    value: Json = None

    async def body(self) -> bytes:
        """Returns bytes that tell FastAPI whether there is a body. The body's own bytes are not kept."""
        return b"parsed" if self.has_value else b""

    async def json(self) -> Json:
        return self.value


class OpenRoute(APIRoute):
    """A route that needs no authentication."""

    needs_caller = False
    takes_service_keys = False
    max_values = MAX_VALUES
    max_depth = MAX_DEPTH
    answer_timeout: float | None = None
    """Seconds in which the route answers. None: those of `Timeouts`."""

    def body_limit(self, settings: Settings) -> int:
        """Returns the largest allowed body in bytes."""
        return settings.max_body_bytes

    def answers_within(self, api: ApiState, body: Json) -> float:
        """Returns the seconds in which a request with this body is answered."""
        return self.answer_timeout or api.timeouts.answer_timeout

    def load(self, body: bytes, settings: Settings) -> Json:
        """Parses a body for the schema to check. Raises an AppError if the body is invalid."""
        return load_json(body)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        takes_json = self.body_field is not None
        parameters = [field for field in get_flat_params(self.dependant) if isinstance(field.field_info, Query)]
        known = frozenset(field.alias for field in parameters)

        async def check_and_answer(plain: Request) -> Response:
            request = _ReadRequest(plain.scope, plain.receive)
            state = state_of(request)
            settings = state.api.resources.settings
            if int(request.headers.get("content-length", "0")) > self.body_limit(settings):
                raise too_large(self.body_limit(settings))
            await self.admit(request, state.api)
            if b"%00" in request.scope["query_string"]:
                raise InvalidUnicode
            if self.needs_caller:
                _check_query(request, known)
            with self.arriving(request, state.api):
                if not takes_json:
                    return await answered_within(self.answers_within(state.api, None), answer(request))
                with state.api.bodies.lease(self._payer(request)) as lease:
                    await self._read_json(request, state.api, lease)
                    return await answered_within(self.answers_within(state.api, request.value), answer(request))

        return check_and_answer

    async def admit(self, request: Request, api: ApiState) -> None:
        """Authenticates the caller before the body is read. Raises an AppError to refuse the request."""
        if self.needs_caller:
            state_of(request).identity = await self._identify(request, api)

    def arriving(self, request: Request, api: ApiState) -> AbstractContextManager[None]:
        """Returns a context in which the body is read and the response is made. Streams are sent after it."""
        return nullcontext()

    def check_raw(self, request: Request, api: ApiState, body: bytes) -> None:
        """Checks the raw body before it is parsed. Raises an AppError to refuse the request."""

    def _payer(self, request: Request) -> str:
        """Returns the key of the caller whose share of the memory for bodies this request takes."""
        return state_of(request).identity.caller.quota_key if self.needs_caller else f"addr:{address_of(request)}"

    async def _read_json(self, request: _ReadRequest, api: ApiState, lease: BodyLease) -> None:
        settings, seconds = api.resources.settings, api.timeouts.body_timeout
        declared = request.headers.get("content-length")
        if declared != "0" and (declared is not None or "transfer-encoding" in request.headers):
            check_content_type(request.headers)
        meter = JsonMeter(self.max_values, self.max_depth)
        raw = await read_body(request, self.body_limit(settings), seconds, lease, meter)
        self.check_raw(request, api, raw)
        lease.hold(len(raw) + meter.values * VALUE_BYTES)
        if len(raw) > MAX_INLINE_BYTES or meter.values > MAX_INLINE_VALUES:
            request.value = await api.bodies.decode(lambda: self.load(raw, settings))
        elif raw:
            request.value = self.load(raw, settings)
        request.has_value = bool(raw)

    async def _identify(self, request: Request, api: ApiState) -> Identity:
        by_key = self.takes_service_keys and "authorization" not in request.headers
        if by_key and api.service_keys.valid(request.headers):
            return Identity(Caller(None, address_of(request)))
        return await api.authenticator.identify(request.headers, address_of(request))


def _check_query(request: Request, known: frozenset[str]) -> None:
    """Raises UnknownField if the query has a parameter that the endpoint does not know, as for fields of a body."""
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        message = "This endpoint has no such parameter"
        fields = [{"path": f"query.{name[:100]}", "message": message} for name in unknown[:MAX_LISTED]]
        raise UnknownField("The request has a query parameter that this endpoint does not know.", fields=fields)


def answer_head(router: APIRouter) -> None:
    """Adds a HEAD route beside each GET route of `router` that has none. The server leaves the body out."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    by_head = {route.path for route in routes if "HEAD" in (route.methods or ())}
    for route in routes:
        if "GET" in (route.methods or ()) and route.path not in by_head:
            head = copy.copy(route)
            head.methods, head.include_in_schema = {"HEAD"}, False
            router.routes.append(head)


class CallerRoute(OpenRoute):
    """A route that authenticates its caller. `state.identity` is set before anything else is checked."""

    needs_caller = True


class PostingRoute(CallerRoute):
    """A route that takes a message for the session in its path. A stop waits while the body is still being read."""

    def arriving(self, request: Request, api: ApiState) -> AbstractContextManager[None]:
        return api.arrivals.arriving(request.path_params["session_id"])


class ServiceRoute(CallerRoute):
    """A route that a service may call with only its key, whatever AUTH_MODE requires of users.

    The service is then an anonymous caller.
    """

    takes_service_keys = True
