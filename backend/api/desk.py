"""What the routes share, made once at start-up, and the order in which every request is checked.

Route, size, authentication, content type, JSON, schema; then existence and ownership, then state: those two are the
endpoint's. FastAPI reads and validates bodies before it asks dependencies, so a route class does the first steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, cast

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import Response

from backend.api.auth import Authenticator, Identity, ServiceKeys, WebhookSecrets
from backend.api.completion_loop import CompletionLoop
from backend.api.jobs import Jobs
from backend.api.json_body import load_json
from backend.api.metrics import Metrics
from backend.api.open_streams import OpenStreams
from backend.api.pace import Pace
from backend.api.proxies import TrustedProxies
from backend.chat.models import Caller, Json
from backend.config import Settings
from backend.errors import InvalidUnicode, PayloadTooLarge, RequestTimeout, UnsupportedMediaType
from backend.resources import Resources

LOAD_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything that an endpoint may need. `house` is what the process is connected to."""

    house: Resources
    authenticator: Authenticator
    service_keys: ServiceKeys
    webhook_secrets: WebhookSecrets
    open_streams: OpenStreams
    jobs: Jobs
    completions: CompletionLoop
    metrics: Metrics
    pace: Pace
    proxies: TrustedProxies


class _State(Protocol):
    desk: Desk
    identity: Identity
    request_id: str


def state_of(request: Request) -> _State:
    return cast(_State, request.state)


class _ReadRequest(Request):
    """A request whose body was read, strictly."""

    raw: bytes = b""
    value: Json = None

    async def body(self) -> bytes:
        return self.raw

    async def json(self) -> Json:
        return self.value


class OpenRoute(APIRoute):
    """A route for everyone."""

    needs_caller = False
    takes_service_keys = False

    def body_limit(self, settings: Settings) -> int:
        """In bytes."""
        return settings.max_body_bytes

    def load(self, body: bytes, settings: Settings) -> Json:
        """The value of a body, for the schema to check. Raises what is wrong with it."""
        return load_json(body)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        takes_json = self.body_field is not None

        async def check_and_answer(plain: Request) -> Response:
            request = _ReadRequest(plain.scope, plain.receive)
            state = state_of(request)
            settings = state.desk.house.settings
            if int(request.headers.get("content-length", "0")) > self.body_limit(settings):
                raise too_large(self.body_limit(settings))
            await self.admit(request, state.desk)
            if b"%00" in request.scope["query_string"]:
                raise InvalidUnicode
            if takes_json:
                await self._read_json(request, state.desk)
            return await answer(request)

        return check_and_answer

    async def admit(self, request: Request, desk: Desk) -> None:
        """Before the body is read: who asks. Raises what turns them away."""
        if self.needs_caller:
            state_of(request).identity = await self._identify(request, desk)

    def check_raw(self, request: Request, desk: Desk, body: bytes) -> None:
        """Before the body is parsed. Raises what is wrong with it as a whole."""

    async def _read_json(self, request: _ReadRequest, desk: Desk) -> None:
        settings, seconds = desk.house.settings, desk.pace.body_timeout
        declared = request.headers.get("content-length")
        if declared != "0" and (declared is not None or "transfer-encoding" in request.headers):
            _check_content_type(request.headers)
        request.raw = await _read_body(request, self.body_limit(settings), seconds)
        self.check_raw(request, desk, request.raw)
        if len(request.raw) > LOAD_AT_ONCE:  # in a thread the loop's other work gets its turn meanwhile
            request.value = await asyncio.to_thread(self.load, request.raw, settings)
        elif request.raw:
            request.value = self.load(request.raw, settings)

    async def _identify(self, request: Request, desk: Desk) -> Identity:
        by_key = self.takes_service_keys and "authorization" not in request.headers
        if by_key and desk.service_keys.valid(request.headers):
            return Identity(Caller(None, address_of(request)))
        return await desk.authenticator.identify(request.headers, address_of(request))


class CallerRoute(OpenRoute):
    """A route for callers that are known: `state.identity` is set before anything else is looked at."""

    needs_caller = True


class ServiceRoute(CallerRoute):
    """A route that a service may call with its key alone, as nobody, whatever AUTH_MODE asks of users."""

    takes_service_keys = True


def address_of(request: Request) -> str:
    """The caller's address, as far as it is known: forwarding headers are believed of our own proxies alone."""
    peer = request.client.host if request.client is not None else "local"
    return state_of(request).desk.proxies.client_of(peer, request.headers.getlist("x-forwarded-for"))


def too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is too large; the limit is {limit} bytes.")


def _check_content_type(headers: Headers) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType


async def _read_body(request: Request, limit: int, seconds: float) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise too_large(limit)
    except TimeoutError:
        raise RequestTimeout from None
    return bytes(body)
