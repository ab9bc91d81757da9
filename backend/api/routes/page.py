"""`/` until the chat page is built: what to try, and a form that works. And `/metrics`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from backend.api.deps import AtDesk

router = APIRouter(include_in_schema=False)
_SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@cache
def _asset(name: str) -> bytes:
    return files("backend.api").joinpath("static", name).read_bytes()


def _served(name: str, media_type: str) -> Response:
    return Response(_asset(name), headers=_SECURITY, media_type=media_type)


@router.get("/")
async def page() -> Response:
    return _served("index.html", "text/html")


@router.get("/try.js")
async def script() -> Response:
    return _served("try.js", "text/javascript")


@router.get("/try.css")
async def style() -> Response:
    return _served("try.css", "text/css")


@router.get("/favicon.ico")
async def icon() -> Response:
    return _served("favicon.svg", "image/svg+xml")


@router.get("/metrics")
async def metrics(desk: AtDesk) -> Response:
    return Response(desk.metrics.render(), media_type=CONTENT_TYPE_LATEST)
