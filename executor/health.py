"""The executor's own small HTTP door: health and metrics, as the API serves them, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend.errors import ConfigError
from backend.resources import Resources
from executor.metrics import Metrics

_PREFIX = "/api/chat"


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
        config = uvicorn.Config(_app(house, metrics), log_config=None, lifespan="off", access_log=False)
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


def _app(house: Resources, metrics: Metrics) -> Starlette:
    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "service": "executor", "version": version("copilot-chat")})

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        checks = await house.state()
        good = all(checks.values())
        return JSONResponse({"status": "ready" if good else "not_ready", "checks": checks}, 200 if good else 503)

    async def counted(_: Request) -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    pages = (("/health", health), ("/health/live", live), ("/health/ready", ready))
    routes = [Route(prefix + path, page) for prefix in ("", _PREFIX) for path, page in pages]
    return Starlette(routes=[*routes, Route("/metrics", counted)])
