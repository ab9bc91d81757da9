"""The executor's own small HTTP door: health and metrics, as the API serves them, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from backend.chat.models import Json
from backend.errors import ConfigError
from backend.resources import Resources
from executor.metrics import Metrics
from executor.pages import Answer, Page, serve_pages

_PREFIX = "/api/chat"


@asynccontextmanager
async def serve_health(house: Resources, port: int, metrics: Metrics) -> AsyncIterator[None]:
    """Serves /health, /health/live, /health/ready (also under /api/chat) and /metrics while the block lasts.

    Raises ConfigError when the port cannot be listened on.
    """
    with _listen(house.settings.host, port) as listener:
        async with serve_pages(listener, _pages(house, metrics)):
            yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"EXECUTOR_PORT: cannot listen on {host}:{port}: {error.strerror}") from error


def _pages(house: Resources, metrics: Metrics) -> dict[str, Page]:
    async def health() -> Answer:
        return _json({"status": "ok", "service": "executor", "version": version("copilot-chat")})

    async def live() -> Answer:
        return _json({"status": "ok"})

    async def ready() -> Answer:
        checks = await house.state()
        good = all(checks.values())
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return _json({"status": "ready" if good else "not_ready", "checks": checks}, status)

    async def counted() -> Answer:
        return Answer(metrics.render(), CONTENT_TYPE_LATEST)

    pages: dict[str, Page] = {"/health": health, "/health/live": live, "/health/ready": ready}
    return {prefix + path: page for prefix in ("", _PREFIX) for path, page in pages.items()} | {"/metrics": counted}


def _json(document: Json, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(orjson.dumps(document), status=status)
