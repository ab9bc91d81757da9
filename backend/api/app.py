"""The ASGI application: its routes, its error handlers and its lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from socket import gethostname
from typing import Any, TypeAlias, TypedDict

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from backend.api.arrivals import ArrivingMessages
from backend.api.auth import Authenticator, FrontendKeys, ServiceKeys, WebhookSecrets
from backend.api.body_memory import BodyMemory
from backend.api.completion_loop import CompletionLoop
from backend.api.cors import Cors
from backend.api.jobs import Jobs
from backend.api.metrics import ApiMetrics
from backend.api.middleware import RequestMiddleware
from backend.api.open_streams import OpenStreams
from backend.api.origins import Origins
from backend.api.per_minute import PerMinute
from backend.api.platform_access import PLATFORM_SECONDS
from backend.api.problems import Problem, error_response
from backend.api.proxies import TrustedProxies
from backend.api.routes import (
    a2a,
    ag_ui,
    agent_runs,
    autogpt,
    chat,
    events,
    export,
    feedback,
    files,
    folders,
    health,
    instructions,
    library,
    models,
    openai,
    operations,
    page,
    publications,
    questions,
    schema,
    search,
    sessions,
    shares,
    streams,
    tasks,
    tool_servers,
    user,
    webhooks,
    workspace,
)
from backend.api.routes_base import answer_head
from backend.api.session_access import watching_owners
from backend.api.state import ApiState, state_of
from backend.api.timeouts import Timeouts
from backend.api.uploads import Uploads, largest_upload
from backend.chat.resources import Resources
from backend.config import Settings
from backend.errors import AppError, TooManyReads, TooManySessions
from backend.platform import open_platform
from backend.resources import open_resources

PREFIX = "/api/chat"
SHARED_READS = 120
"""Shared conversations that one address may read in a minute."""
Connect: TypeAlias = Callable[[Settings], AbstractAsyncContextManager[Resources]]


class Lifespan(TypedDict):
    """The state that the lifespan gives to every request."""

    api: ApiState


class ChatApp(FastAPI):
    """FastAPI behind RequestMiddleware. The server uses `timeouts`, and cuts the `open_streams` when it stops."""

    request_middleware: RequestMiddleware
    open_streams: OpenStreams
    arrivals: ArrivingMessages
    timeouts: Timeouts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.request_middleware(scope, receive, send)

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
    timeouts: Timeouts = Timeouts(),
    connect: Connect = open_resources,
) -> ChatApp:
    """Makes the application. Its lifespan opens the resources with `connect`. Raises ConfigError."""
    metrics = ApiMetrics()
    open_streams = OpenStreams(settings.max_open_streams, timeouts)
    metrics.watch_open_streams(lambda: float(len(open_streams)))
    bodies, arrivals = BodyMemory(settings.max_body_memory), ArrivingMessages()
    metrics.watch_body_bytes(lambda: float(bodies.taken))
    app = ChatApp(
        title="CoPilot",
        version=health.VERSION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings, timeouts, metrics, open_streams, bodies, arrivals, connect),
    )
    _add_routes(app)
    _expect_requests(app, metrics)
    _add_error_handlers(app)
    app.open_streams = open_streams
    app.arrivals = arrivals
    app.timeouts = timeouts
    app.request_middleware = RequestMiddleware(
        super(ChatApp, app).__call__, PREFIX, _cors(settings), Origins(settings), metrics
    )
    return app


def _cors(settings: Settings) -> Cors:
    return Cors(settings.frontend_base_url, headers=settings.cors_headers, credentials=settings.cors_credentials)


def _lifespan(
    settings: Settings,
    timeouts: Timeouts,
    metrics: ApiMetrics,
    open_streams: OpenStreams,
    bodies: BodyMemory,
    arrivals: ArrivingMessages,
    connect: Connect,
) -> Callable[[FastAPI], AbstractAsyncContextManager[Lifespan]]:
    """Makes the lifespan, which opens and closes everything that requests need. Raises ConfigError."""
    authenticator, keys, secrets = Authenticator(settings), ServiceKeys(settings), WebhookSecrets(settings)
    frontend_keys = FrontendKeys(settings)
    proxies = TrustedProxies(settings.trusted_proxies)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Lifespan]:
        jobs = Jobs()
        async with (
            connect(settings) as resources,
            open_platform(settings, PLATFORM_SECONDS) as platform,
            jobs.supervised(),
            CompletionLoop.running(
                resources, _consumer_name(resources), on_dead=metrics.count_dead_completion
            ) as completions,
            open_streams.supervised(),
            bodies.supervised(),
            watching_owners(resources, open_streams),
            _closing(authenticator),
        ):
            metrics.watch_clock_skew("postgres", lambda: resources.liveness.skew.seconds)
            resources.report_to(pool_wait=metrics.count_pool_wait, appended=metrics.count_appended)
            api = ApiState(
                resources,
                authenticator,
                keys,
                frontend_keys,
                secrets,
                open_streams,
                arrivals,
                jobs,
                completions,
                metrics,
                timeouts,
                proxies,
                bodies,
                PerMinute(settings.max_new_sessions, TooManySessions),
                Uploads(largest_upload(settings)),
                platform,
                PerMinute(SHARED_READS, TooManyReads),
            )
            yield Lifespan(api=api)

    return lifespan


@asynccontextmanager
async def _closing(authenticator: Authenticator) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await authenticator.close()


def _add_routes(app: ChatApp) -> None:
    # routes are matched in this order: those of messages come first, as they are used most; the paths of chat begin
    # with a parameter and come last
    modules = (
        streams,
        *(sessions, export, folders, feedback, shares, search, user, instructions, models, autogpt, tasks, operations),
        questions,
        *(tool_servers, webhooks, events, files, workspace, health, schema, ag_ui, a2a),
        chat,
    )
    answer_head(tool_servers.pages)
    answer_head(shares.reading)
    answer_head(a2a.cards)
    for module in (*modules, library, agent_runs, publications, openai, page):
        answer_head(module.router)
    app.include_router(chat.posting, prefix=PREFIX)
    for module in modules:
        app.include_router(module.router, prefix=PREFIX)
    app.include_router(tool_servers.pages, prefix=PREFIX)
    app.include_router(shares.reading, prefix=PREFIX)
    app.include_router(library.router)
    app.include_router(library.imports)
    app.include_router(agent_runs.router)
    app.include_router(publications.router)
    app.include_router(openai.router)
    app.include_router(a2a.cards)
    app.include_router(a2a.cards, prefix=f"{PREFIX}{a2a.PATH}", include_in_schema=False)
    app.include_router(page.router)
    app.include_router(health.router, include_in_schema=False)  # probes usually ask for paths without a prefix


def _expect_requests(app: ChatApp, metrics: ApiMetrics) -> None:
    for route in iter_route_contexts(app.routes):
        for method in (route.methods or set()) - {"HEAD"}:
            metrics.expect(method, str(route.path))


def _add_error_handlers(app: ChatApp) -> None:
    for error in (AppError, RequestValidationError, HTTPException, RedisError):
        app.add_exception_handler(error, _answer_error)
    app.add_exception_handler(Exception, _answer_unexpected)


def _consumer_name(resources: Resources) -> str:
    """Names this process in the group that reads completions.

    The name stays the same after a restart, so that the process resumes the entries that it had not finished.
    """
    return f"api-{gethostname()}-{resources.settings.port or resources.me}"


async def _answer_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        # the router names only the methods of the first route that matches the path
        error.headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return error_response(error, state_of(request).request_id, request.scope["path"])


async def _answer_unexpected(request: Request, error: Exception) -> Response:
    """Answers an unexpected error. Starlette raises the error again after the response was sent."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # never sent: the client has disconnected
    return error_response(error, state_of(request).request_id, request.scope["path"])


def _methods(request: Request) -> set[str]:
    path = request.scope["path"]
    contexts = iter_route_contexts(request.app.routes)
    return {method for context in contexts if context.path_regex.match(path) for method in context.methods or ()}
