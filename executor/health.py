"""The executor's own small HTTP door: health and metrics, as the API serves them, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend.resources import Resources

_PREFIX = "/api/chat"


class _Server(uvicorn.Server):
    """Leaves the signals to the executor."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve_health(house: Resources, port: int) -> AsyncIterator[None]:
    """Serves /health, /health/live, /health/ready (also under /api/chat) and /metrics while the block lasts."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "service": "executor", "version": version("copilot-chat")})

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        state = await house.state()
        good = all(state.values())
        return JSONResponse({"status": "ready" if good else "not_ready", "checks": state}, 200 if good else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    pages = (("/health", health), ("/health/live", live), ("/health/ready", ready))
    routes = [Route(prefix + path, page) for prefix in ("", _PREFIX) for path, page in pages]
    app = Starlette(routes=[*routes, Route("/metrics", metrics)])
    config = uvicorn.Config(app, host=house.settings.host, port=port, log_config=None, lifespan="off", access_log=False)
    server = _Server(config)
    serving = asyncio.create_task(server.serve(), name="health server")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({serving}, timeout=5)
        serving.cancel()
