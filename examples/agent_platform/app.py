"""The HTTP interface of the platform, which the generator serves under PREFIX."""

from __future__ import annotations

import hmac
import logging
import sqlite3
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.agent_platform.parts import Platform
from examples.agent_platform.problems import Problem, answer_problem
from examples.agent_platform.routes import blocks, executions, graphs, schedules, webhooks

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/api/v1"
_OPEN = ("/health", webhooks.PREFIX)
logger = logging.getLogger(__name__)


class _KeyCheck:
    """Refuses requests without the platform's key, if it has one."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._key = key.encode() if key is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._key is not None:
            request = Request(scope)
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            given = request.headers.get("x-api-key", "").encode("latin-1")
            if not path.startswith(_OPEN) and not hmac.compare_digest(given, self._key):
                await Problem(401, "unauthorized", "The API key is missing or wrong.").response(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def health(_: Request) -> Response:
    return JSONResponse({"status": "healthy"})


def create_platform_app(key: str | None) -> Starlette:
    """Creates the app. `app.state.platform` must be set before its first request."""
    routes = [
        Route("/health", health),
        *blocks.ROUTES,
        *graphs.ROUTES,
        *executions.ROUTES,
        *schedules.ROUTES,
        *webhooks.ROUTES,
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_KeyCheck, key=key)],
        exception_handlers={
            Problem: answer_problem,
            HTTPException: _answer_http,
            sqlite3.Error: _answer_unavailable,
        },
    )


def use_platform(app: Starlette, platform: Platform) -> None:
    app.state.platform = platform


async def _answer_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return Problem(404, "not_found", "There is no such path.").response
    code = "too_large" if error.status_code == 413 else "invalid_request"
    return Problem(error.status_code, code, str(error.detail)).response


async def _answer_unavailable(_: Request, error: Exception) -> Response:
    logger.error("the database failed: %s", error)
    return Problem(503, "unavailable", "The database is not available. Please retry later.", retry_after=5).response
