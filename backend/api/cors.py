"""Cross-origin requests from the origins of FRONTEND_BASE_URL, and from no other."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers

RawHeaders = list[tuple[bytes, bytes]]

_EXPOSED = "x-resumable-stream-id, x-vercel-ai-ui-message-stream, x-request-id, retry-after"
_METHODS = "GET, HEAD, POST, PATCH, DELETE"
_REQUEST_HEADERS = "authorization, content-type, idempotency-key, last-event-id, x-api-key"


class Cors:
    def __init__(self, frontend_base_url: str) -> None:
        self._origins = frozenset(_origin(url.strip()) for url in frontend_base_url.split(",") if url.strip())

    def headers(self, request: Headers) -> RawHeaders:
        """What goes on every answer. `Vary` always, so that no cache mixes origins up."""
        if not self._origins:
            return []
        given: RawHeaders = [(b"vary", b"Origin")]
        if (origin := request.get("origin")) in self._origins and origin is not None:
            given.append((b"access-control-allow-origin", origin.encode("ascii")))
            given.append((b"access-control-expose-headers", _EXPOSED.encode()))
        return given

    def preflight(self, request: Headers) -> RawHeaders:
        """What an allowed origin may send, on top of `headers`."""
        if request.get("origin") not in self._origins:
            return []
        return [
            (b"access-control-allow-methods", _METHODS.encode()),
            (b"access-control-allow-headers", _REQUEST_HEADERS.encode()),
            (b"access-control-max-age", b"600"),
        ]


def is_preflight(method: str, request: Headers) -> bool:
    return method == "OPTIONS" and "origin" in request and "access-control-request-method" in request


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()
