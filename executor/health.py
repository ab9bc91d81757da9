"""The executor's small HTTP server: health and metrics, in the form in which the API serves them."""

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
from backend.chat.resources import Resources
from backend.errors import ConfigError
from backend.metrics_key import may_read_metrics
from executor.metrics import ExecutorMetrics, ToolServer

_PREFIX, _METRICS = "/api/chat", "/metrics"
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
    """A uvicorn server that leaves signals to the executor."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve_health(resources: Resources, port: int, metrics: ExecutorMetrics) -> AsyncIterator[None]:
    """Serves /health, /health/live, /health/ready (each also below /api/chat) and /metrics while the block runs.

    Raises ConfigError if the port cannot be opened.
    """
    with _listen(resources.settings.host, port) as listener:
        # no lifespan events and no log of its own; the listener is closed here
        config = uvicorn.Config(
            _app(resources, metrics), http="httptools", ws="none", log_config=None, lifespan="off", access_log=False
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
    """Opens the port before the executor starts to work, because uvicorn would exit the process if it could not."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"EXECUTOR_PORT: cannot listen on {host}:{port}: {error.strerror}") from error


def _app(resources: Resources, metrics: ExecutorMetrics) -> Application:
    """Returns a bare ASGI application; importing Starlette would add a twentieth to the executor's start."""
    pages = _pages(resources, metrics)

    async def app(scope: Mapping[str, Any], _: Receive, send: Send) -> None:
        page = pages.get(scope["path"])
        if page is None:
            answer = _plain(HTTPStatus.NOT_FOUND)
        elif scope["method"] not in _METHODS:
            answer = _plain(HTTPStatus.METHOD_NOT_ALLOWED, allow=", ".join(_METHODS))
        elif scope["path"] == _METRICS and not may_read_metrics(resources.settings, _authorization(scope)):
            answer = _plain(HTTPStatus.UNAUTHORIZED, **{"www-authenticate": "Bearer"})
        else:
            answer = await page()
        head = {"content-type": answer.content_type, "content-length": str(len(answer.body)), **answer.headers}
        encoded = [(name.encode(), value.encode()) for name, value in head.items()]
        await send({"type": "http.response.start", "status": answer.status.value, "headers": encoded})
        await send({"type": "http.response.body", "body": answer.body})  # uvicorn omits the body for HEAD

    return app


def _pages(resources: Resources, metrics: ExecutorMetrics) -> dict[str, Page]:
    async def health() -> Answer:
        report: dict[str, Json] = {"status": "ok", "service": "executor", "version": version("copilot-chat")}
        if servers := metrics.tool_servers():
            report["mcp_servers"] = {server.name: _server_report(server) for server in servers}
        if (broken := metrics.sandbox_away) is not None:
            why = broken()
            report["sandbox"] = {"works": why is None, **({} if why is None else {"why": why})}
        if (away := metrics.platform_away) is not None:
            why = away()
            report["agent_platform"] = {"reached": why is None, **({} if why is None else {"why": why})}
        return _json(report)

    async def live() -> Answer:
        return _json({"status": "ok"})

    async def ready() -> Answer:
        state = await resources.state()
        good = all(state.checks.values())
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        document: Json = {"status": "ready" if good else "not_ready", "checks": state.checks}
        return _json(document if good else {**document, "reasons": state.reasons}, status)

    async def counted() -> Answer:
        metrics.note_checks((await resources.state()).checks)
        return Answer(metrics.render(), CONTENT_TYPE_LATEST)

    pages: dict[str, Page] = {"/health": health, "/health/live": live, "/health/ready": ready}
    return {prefix + path: page for prefix in ("", _PREFIX) for path, page in pages.items()} | {_METRICS: counted}


def _authorization(scope: Mapping[str, Any]) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), "")


def _server_report(server: ToolServer) -> Json:
    unusable: dict[str, Json] = dict(server.unusable)
    report: dict[str, Json] = {"connected": server.connected, "tools": server.tools}
    for name, value in (("why", server.why), ("tools_left_out", server.left_out), ("unusable_tools", unusable)):
        if value:
            report[name] = value
    return report


def _json(document: Json, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(orjson.dumps(document), status=status)


def _plain(status: HTTPStatus, **headers: str) -> Answer:
    return Answer(status.phrase.encode(), "text/plain; charset=utf-8", status, headers)
