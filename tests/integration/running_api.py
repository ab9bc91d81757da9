"""A real API server and a real executor with the scripted model, over real stores and in the loop of the tests."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import orjson

from backend.api.app import ChatApp, create_app
from backend.api.server import ChatServer, build_server
from backend.api.timeouts import Timeouts
from backend.chat.resources import Resources
from backend.config import Settings
from backend.platform import open_platform
from backend.resources import open_resources
from executor.heartbeat import Heartbeat
from executor.llm.models import open_models
from executor.tools import open_toolbox, own_tools
from executor.tools.tool import Toolbox
from executor.turns.context import ExecutorContext
from executor.worker import Worker
from tests.plain_http import http_client
from tests.speed import limit
from tests.sse_client import StrictClient

JWT_KEY = "a-secret-of-the-api-tests-0123456789abcdef"
SERVICE_KEY = "a-service-key-of-the-tests-1"
OLD_SERVICE_KEY = "a-service-key-of-the-tests-0"
LIMIT = limit(20)
SETTINGS: Mapping[str, Any] = {
    "host": "127.0.0.1",
    "port": 0,
    "queue": "redis",
    "jwt_verify_key": JWT_KEY,
    "chat_internal_api_key": f"{SERVICE_KEY},{OLD_SERVICE_KEY}",
    "chat_provider": "scripted",
    "frontend_base_url": "https://chat.example.com, http://localhost:5173/",
    "data_dir": Path(tempfile.gettempdir()) / f"copilot-test-data-{os.getuid()}",
    "shutdown_grace": 2,
    "max_open_streams": 8,
    "max_new_sessions": 100_000,
}


def token(user: str, *, lives: float = 600, key: str = JWT_KEY, algorithm: str = "HS256", **claims: Any) -> str:
    members = {"sub": user, "exp": int(time.time() + lives), **claims}
    return jwt.encode({k: v for k, v in members.items() if v is not None}, key, algorithm=algorithm)


def bearer(user: str, **claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {token(user, **claims)}"}


def new_user() -> str:
    return f"user-{uuid.uuid4().hex[:12]}"


def new_id() -> str:
    return uuid.uuid4().hex


@dataclass
class RunningApi:
    """A running API server: `http` is an anonymous client of it, and `resources` are connected to its stores."""

    server: ChatServer
    app: ChatApp
    resources: Resources
    http: httpx.AsyncClient

    @property
    def port(self) -> int:
        return self.server.port

    def as_user(self, user: str | None = None) -> dict[str, str]:
        return bearer(user or new_user())

    async def new_session(self, headers: Mapping[str, str] | None = None) -> str:
        answer = await self.http.post("/api/chat/sessions", json={}, headers=headers)
        assert answer.status_code == 200, answer.text
        id: str = answer.json()["id"]
        return id

    async def session(self, id: str, headers: Mapping[str, str] | None = None, **params: Any) -> dict[str, Any]:
        answer = await self.http.get(f"/api/chat/sessions/{id}", headers=headers, params=params)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def active_stream(self, id: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Returns the active stream of the session, for which it waits up to LIMIT seconds."""
        async with asyncio.timeout(LIMIT):
            while (active := (await self.session(id, headers)).get("active_stream")) is None:
                await asyncio.sleep(0.02)
        found: dict[str, Any] = active
        return found

    async def reading(self, count: int) -> None:
        """Waits up to LIMIT seconds until the API has `count` open streams: a request that began may arrive later."""
        async with asyncio.timeout(LIMIT):
            while len(self.app.open_streams) != count:
                await asyncio.sleep(0.02)

    async def read(
        self, method: str, path: str, *, client: StrictClient | None = None, within: float = LIMIT, **request: Any
    ) -> tuple[httpx.Response, StrictClient]:
        """Reads a stream to its end."""
        client = client or StrictClient()
        async with asyncio.timeout(within), self.http.stream(method, path, **request) as answer:
            if answer.status_code != 200:
                await answer.aread()
                return answer, client
            async for data in answer.aiter_raw():
                client.feed(without_comments(data))
        return answer, client

    async def say(self, session: str, text: str, headers: Mapping[str, str] | None = None, **body: Any) -> StrictClient:
        """Posts a message and reads its answer to the end."""
        answer, client = await self.read(
            "POST", f"/api/chat/sessions/{session}/stream", json={"message": text, **body}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        assert client.done
        return client

    async def ended(self, task: str, headers: Mapping[str, str], **params: Any) -> StrictClient:
        """Reads the stream of a task from its beginning to its end."""
        answer, client = await self.read("GET", f"/api/chat/tasks/{task}/stream", headers=headers, params=params)
        assert answer.status_code == 200, answer.text
        return client


def outputs_in(session: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the outputs of tools in a session, as its rows have them."""
    return [row["parts"][0]["output"] for row in session["messages"] if row["role"] == "tool"]


def without_comments(data: bytes) -> bytes:
    """Removes the comments, which are frames of their own."""
    return data.replace(b": stream-open\n\n", b"").replace(b": keep-alive\n\n", b"")


@asynccontextmanager
async def running_api(
    postgres_dsn: str,
    redis_dsn: str,
    *,
    executor: bool = True,
    timeouts: Timeouts = Timeouts(),
    toolbox: Callable[[Settings], Toolbox] = open_toolbox,
    **changes: Any,
) -> AsyncIterator[RunningApi]:
    """Runs the server and the executor. Takes no setting from the environment of the machine."""
    stores = {"database_url": postgres_dsn, "redis_url": redis_dsn}
    settings = Settings(**{**SETTINGS, **stores, **changes})
    async with AsyncExitStack() as stack:
        gc.collect()  # reports what earlier tests leaked, before the start of the server freezes all objects
        resources = await stack.enter_async_context(open_resources(settings))
        app = create_app(settings, timeouts=timeouts)
        server = build_server(settings, app)
        serving = asyncio.create_task(server.serve())
        stack.push_async_callback(_stop_server, server, serving)
        async with asyncio.timeout(LIMIT):
            while not server.started:
                assert not serving.done(), serving.result()
                await asyncio.sleep(0.02)
        if executor:
            await stack.enter_async_context(executing(settings, toolbox))
        client = http_client(
            base_url=f"http://127.0.0.1:{server.port}", timeout=LIMIT, limits=httpx.Limits(max_connections=None)
        )
        yield RunningApi(server, app, resources, await stack.enter_async_context(client))


async def _stop_server(server: ChatServer, serving: asyncio.Task[None]) -> None:
    server.should_exit = True
    async with asyncio.timeout(LIMIT):
        await serving


@asynccontextmanager
async def executing(
    settings: Settings, toolbox: Callable[[Settings], Toolbox] = open_toolbox
) -> AsyncIterator[ExecutorContext]:
    stop = asyncio.Event()
    async with (
        open_resources(settings) as resources,
        open_models(settings) as models,
        open_platform(settings) as platform,
    ):
        tools = toolbox(settings) if platform is None else Toolbox(own_tools(settings, None, platform))
        context = ExecutorContext(settings, models, tools, Heartbeat(resources), platform=platform)
        working = asyncio.create_task(Worker(resources, context).run(stop))
        try:
            yield context
        finally:
            stop.set()
            async with asyncio.timeout(LIMIT):
                await working


def post(path: str, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: x", *headers]).encode() + b"\r\n\r\n"


@dataclass
class RawAnswer:
    """The bytes of an answer, and True in `closed` if the server closed the connection."""

    data: bytes
    closed: bool

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1])

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def code(self) -> str:
        code: str = orjson.loads(self.body)["code"]
        return code


async def send_raw(port: int, request: bytes, *, within: float = LIMIT, until: bytes | None = None) -> RawAnswer:
    """Sends `request` unchanged. Reads until the server closes the connection or `until` was read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = bytearray()
    try:
        writer.write(request)
        async with asyncio.timeout(within):
            while until is None or until not in data:
                try:
                    piece = await reader.read(65536)
                except ConnectionResetError:
                    return RawAnswer(bytes(data), True)
                if not piece:
                    return RawAnswer(bytes(data), True)
                data += piece
        return RawAnswer(bytes(data), False)
    finally:
        writer.close()
