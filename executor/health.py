"""The executor's own small HTTP door: health and metrics, as the API serves them, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import orjson
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST

from backend.chat.models import Json
from backend.errors import ConfigError
from backend.resources import Resources
from executor.metrics import Metrics

_PREFIX = "/api/chat"
_METHODS = ("GET", "HEAD")
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


Page = Callable[[], Awaitable[Answer]]


class _Server(uvicorn.Server):
    """Leaves the signals to the executor."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve_health(house: Resources, port: int, metrics: Metrics) -> AsyncIterator[None]:
    """Serves /health, /health/live, /health/ready (also under /api/chat) and /metrics while the block lasts.

    Raises ConfigError when the port cannot be listened on.
    """
    with _listen(house.settings.host, port) as listener:
        # no lifespan, no log of its own; it only borrows the listener
        config = uvicorn.Config(
            _app(house, metrics), http="httptools", ws="none", log_config=None, lifespan="off", access_log=False
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="health server")
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.wait({serving}, timeout=5)
            serving.cancel()


def _listen(host: str, port: int) -> socket.socket:
    """Before the executor works: uvicorn ends the whole process from inside when it cannot listen."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"EXECUTOR_PORT: cannot listen on {host}:{port}: {error.strerror}") from error


def _app(house: Resources, metrics: Metrics) -> Application:
    """A bare ASGI application: importing Starlette would be a twentieth of the executor's start."""
    pages = _pages(house, metrics)

    async def app(scope: Mapping[str, Any], _: Receive, send: Send) -> None:
        page = pages.get(scope["path"])
        if page is None:
            answer = _plain(HTTPStatus.NOT_FOUND)
        elif scope["method"] not in _METHODS:
            answer = _plain(HTTPStatus.METHOD_NOT_ALLOWED, allow=", ".join(_METHODS))
        else:
            answer = await page()
        head = {"content-type": answer.content_type, "content-length": str(len(answer.body)), **answer.headers}
        encoded = [(name.encode(), value.encode()) for name, value in head.items()]
        await send({"type": "http.response.start", "status": answer.status.value, "headers": encoded})
        await send({"type": "http.response.body", "body": answer.body})  # uvicorn leaves it out of an answer to HEAD

    return app


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


def _plain(status: HTTPStatus, **headers: str) -> Answer:
    return Answer(status.phrase.encode(), "text/plain; charset=utf-8", status, headers)
