"""The chat page at `/`, which `make page` builds; the form at `/try`, which needs no build; and `/metrics`."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from backend.api.deps import AppState
from backend.errors import NotFound, Unauthenticated
from backend.metrics_key import may_read_metrics

router = APIRouter(include_in_schema=False)
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
_SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
        "media-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
_FRAME_SECURITY = {
    **_SECURITY,
    "content-security-policy": (
        "sandbox allow-scripts; default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; form-action 'none'; "
        "base-uri 'none'; frame-ancestors 'self'"
    ),
    "x-frame-options": "SAMEORIGIN",
}
"""The headers of the frame that draws diagrams: it has no origin, and reaches no server."""
_REVALIDATED = "no-cache"
_IMMUTABLE = "public, max-age=31536000, immutable"
"""The caching of files whose names contain a hash of their content."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page. It is compressed when somebody first wants it: most files are rarely used."""

    body: bytes
    media_type: str

    @property
    def compressed(self) -> bytes:
        return _compressed(self.body)

    def served(
        self, request: Request, caching: str = _REVALIDATED, security: Mapping[str, str] = _SECURITY
    ) -> Response:
        headers = {**security, "cache-control": caching, "vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(self.compressed, headers=headers, media_type=self.media_type)
        return Response(self.body, headers=headers, media_type=self.media_type)


def read_assets(folder: Traversable) -> dict[str, Asset]:
    """Reads the files of a folder, by their names. Returns {} if the folder does not exist.

    Only files that were read here are ever served.
    """
    if not folder.is_dir():
        return {}
    return {entry.name: _read(entry) for entry in folder.iterdir() if entry.is_file() and _type_of(entry.name)}


def _read(entry: Traversable) -> Asset:
    body = entry.read_bytes()
    media_type = _type_of(entry.name)
    assert media_type is not None
    return Asset(body, media_type)


@cache
def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, 9, mtime=0)


def _type_of(name: str) -> str | None:
    return next((kind for ending, kind in _TYPES.items() if name.endswith(ending)), None)


@cache
def _built() -> dict[str, Asset]:
    return read_assets(files("backend.api").joinpath("page"))


@cache
def _hashed() -> dict[str, Asset]:
    return read_assets(files("backend.api").joinpath("page", "assets"))


@cache
def _plain() -> dict[str, Asset]:
    return read_assets(files("backend.api").joinpath("static"))


@router.get("/")
@router.get("/c/{session_id}")
@router.get("/library")
@router.get("/library/agents/{agent_id}")
@router.get("/build")
async def page(request: Request) -> Response:
    """Serves the chat page for each of its addresses, or the plain form if the page is not built."""
    return (_built().get("index.html") or _plain()["index.html"]).served(request)


@router.get("/s/{share_token}")
async def shared_page(request: Request) -> Response:
    """Serves the page of a shared conversation, which no search engine lists."""
    served = _named(_built(), "shared.html").served(request)
    served.headers["x-robots-tag"] = "noindex, nofollow"
    return served


@router.get("/diagrams.html")
async def diagrams(request: Request) -> Response:
    """Serves the frame in which the page draws diagrams."""
    return _named(_built(), "diagrams.html").served(request, security=_FRAME_SECURITY)


@router.get("/theme.js")
async def theme(request: Request) -> Response:
    return _named(_built(), "theme.js").served(request)


@router.get("/assets/{name}")
async def asset(request: Request, name: str) -> Response:
    return _named(_hashed(), name).served(request, _IMMUTABLE)


@router.get("/try")
async def form(request: Request) -> Response:
    return _plain()["index.html"].served(request)


@router.get("/try.js")
async def script(request: Request) -> Response:
    return _plain()["try.js"].served(request)


@router.get("/try.css")
async def style(request: Request) -> Response:
    return _plain()["try.css"].served(request)


@router.get("/favicon.ico")
async def icon(request: Request) -> Response:
    return _plain()["favicon.svg"].served(request)


@router.get("/metrics")
async def metrics(api: AppState, request: Request) -> Response:
    if not may_read_metrics(api.resources.settings, request.headers.get("authorization", "")):
        raise Unauthenticated("/metrics needs METRICS_KEY as bearer token.")
    api.metrics.note_checks((await api.state()).checks)
    return Response(api.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _named(assets: dict[str, Asset], name: str) -> Asset:
    found = assets.get(name)
    if found is None:
        raise NotFound
    return found
