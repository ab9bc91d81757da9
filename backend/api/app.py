"""The application: routes, the one error handler, and what lives as long as the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from socket import gethostname
from typing import Any, TypedDict

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from backend.api.auth import Authenticator, ServiceKeys, WebhookSecrets
from backend.api.completion_loop import CompletionLoop
from backend.api.cors import Cors
from backend.api.desk import Desk, state_of
from backend.api.door import Door
from backend.api.jobs import Jobs
from backend.api.metrics import Metrics
from backend.api.open_streams import OpenStreams
from backend.api.pace import Pace
from backend.api.problems import Problem, problem_response
from backend.api.proxies import TrustedProxies
from backend.api.routes import chat, events, health, library, operations, page, schema, sessions, streams, tasks
from backend.config import Settings
from backend.errors import AppError
from backend.resources import Resources, open_resources

PREFIX = "/api/chat"


class Lifespan(TypedDict):
    desk: Desk


class ChatApp(FastAPI):
    """FastAPI behind a door of ours. `open_streams` is for the server: it cuts them when it stops."""

    door: Door
    open_streams: OpenStreams
    pace: Pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.door(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if not self.openapi_schema:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs", {}))
            schemas["Problem"] = problem
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
        return self.openapi_schema or {}


def create_app(
    settings: Settings,
    *,
    pace: Pace = Pace(),
    open_house: Callable[[Settings], AbstractAsyncContextManager[Resources]] = open_resources,
) -> ChatApp:
    """The ASGI application; it connects to everything when its lifespan begins. Raises ConfigError."""
    authenticator, keys, secrets = Authenticator(settings), ServiceKeys(settings), WebhookSecrets(settings)
    proxies = TrustedProxies(settings.trusted_proxies)
    metrics = Metrics()
    open_streams = OpenStreams(settings.max_open_streams, pace)
    metrics.watch_open_streams(lambda: float(len(open_streams)))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Lifespan]:
        jobs = Jobs()
        async with (
            open_house(settings) as house,
            jobs.supervised(),
            CompletionLoop.running(house, _name_of(house)) as completions,
            open_streams.looked_after(),
        ):
            desk = Desk(house, authenticator, keys, secrets, open_streams, jobs, completions, metrics, pace, proxies)
            yield Lifespan(desk=desk)

    app = ChatApp(
        title="CoPilot",
        version=health.VERSION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    # chat last: its paths begin with a parameter
    for part in (sessions, tasks, operations, events, health, schema, streams, chat):
        app.include_router(part.router, prefix=PREFIX)
    app.include_router(library.router)
    app.include_router(page.router)
    app.include_router(health.router, include_in_schema=False)  # where probes look first
    for error in (AppError, RequestValidationError, HTTPException, RedisError):
        app.add_exception_handler(error, _answer_error)
    app.add_exception_handler(Exception, _answer_fault)
    app.open_streams = open_streams
    app.pace = pace
    app.door = Door(super(ChatApp, app).__call__, PREFIX, Cors(settings.frontend_base_url), metrics)
    return app


def _name_of(house: Resources) -> str:
    """This process among those that take completions: the same after a restart, so that it takes up what it had."""
    return f"api-{gethostname()}-{house.settings.port or house.me}"


async def _answer_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:  # the router names the first route's methods only
        error.headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return problem_response(error, state_of(request).request_id)


async def _answer_fault(request: Request, error: Exception) -> Response:
    """What nobody expected. Starlette raises it again when this is sent."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # to nobody
    return problem_response(error, state_of(request).request_id)


def _methods(request: Request) -> set[str]:
    path = request.scope["path"]
    contexts = iter_route_contexts(request.app.routes)
    return {method for context in contexts if context.path_regex.match(path) for method in context.methods or ()}
