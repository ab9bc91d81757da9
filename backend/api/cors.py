"""CORS headers. Only the origins of FRONTEND_BASE_URL may send cross-origin requests, except for files of the page."""

from __future__ import annotations

from starlette.datastructures import Headers

from backend.api.origins import origin_of, parts_of

RawHeaders = list[tuple[bytes, bytes]]

_EXPOSED = "x-resumable-stream-id, x-vercel-ai-ui-message-stream, x-request-id, retry-after"
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = (
    "authorization", "content-type", "idempotency-key", "last-event-id", "user-agent", "x-api-key",
    "a2a-extensions", "a2a-version", "baggage", "sentry-trace", "traceparent", "tracestate", "x-chat-session-id",
    *(f"x-stainless-{name}" for name in (
        "arch", "helper-method", "lang", "os", "package-version", "retry-count", "runtime", "runtime-version",
        "timeout",
    )),
)  # fmt: skip
"""Headers that pages may send: our own, `user-agent` (AI SDK 5 sets it), those of A2A, Sentry, OpenTelemetry and
OpenAI's SDK.
"""
PAGE_FILES = "/assets/"
"""The files of the page, which everyone may read: the frame that draws diagrams loads them, and has no origin."""


class Cors:
    """`headers` names more request headers that pages may send. With `credentials` they may send cookies."""

    def __init__(self, frontend_base_url: str, *, headers: str = "", credentials: bool = False) -> None:
        self._origins = frozenset(map(origin_of, parts_of(frontend_base_url)))
        added = [name.lower() for name in parts_of(headers)]
        self._request_headers = ", ".join([*_REQUEST_HEADERS, *added]).encode()
        self._credentials: RawHeaders = [(b"access-control-allow-credentials", b"true")] if credentials else []

    def headers(self, path: str, request: Headers) -> RawHeaders:
        """Returns the CORS headers of a response. `Vary` is sent to every origin, so that caches keep origins apart."""
        if path.startswith(PAGE_FILES):
            return [(b"access-control-allow-origin", b"*")]
        if not self._origins:
            return []
        given: RawHeaders = [(b"vary", b"Origin")]
        if (origin := request.get("origin")) in self._origins and origin is not None:
            given.append((b"access-control-allow-origin", origin.encode("ascii")))
            given.append((b"access-control-expose-headers", _EXPOSED.encode()))
            given += self._credentials
        return given

    def preflight(self, request: Headers) -> RawHeaders:
        """Returns the additional headers of a preflight response: what an allowed origin may send."""
        if request.get("origin") not in self._origins:
            return []
        return [
            (b"access-control-allow-methods", _METHODS.encode()),
            (b"access-control-allow-headers", self._request_headers),
            (b"access-control-max-age", b"600"),
        ]


def is_preflight(method: str, request: Headers) -> bool:
    return method == "OPTIONS" and "origin" in request and "access-control-request-method" in request
