"""uvicorn, set up for streams that are open for hours: it aborts them when it stops, and never ends one cleanly."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backend.api.app import ChatApp, create_app
from backend.api.problems import problem_response
from backend.api.sse import TRANSPORT
from backend.config import Settings
from backend.errors import BadRequest
from backend.garbage import resume_collector
from backend.resources import Resources, open_resources

KEEP_ALIVE = 75
logger = logging.getLogger(__name__)


class ChatProtocol(HttpToolsProtocol):
    """Lends its transport to streams, and gives a request's head a time to arrive in."""

    _head_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # the door writes the one line of a request, without its query

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]
        if self._head_timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        answer = problem_response(BadRequest("This is not HTTP."), "-")
        head = [b"HTTP/1.1 400 Bad Request\r\n"]
        head += [name + b": " + value + b"\r\n" for name, value in answer.raw_headers]
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", bytes(answer.body)]))
        self.transport.close()

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(cast(ChatApp, self.config.app).pace.head_timeout, self.transport.abort)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class ChatServer(uvicorn.Server):
    """Stops in this order: all streams aborted, no new connections, requests answered, everything disconnected."""

    def __init__(self, app: ChatApp, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._forget_who_vanished()
        logger.info("API listens", extra={"host": self.config.host, "port": self.port})
        resume_collector()

    def _forget_who_vanished(self) -> None:
        """What a client does not acknowledge for `send_timeout` ends its connection, also the few bytes that fit into
        the kernel's buffers. Linux would try for 15 minutes, and the stream keep its seat. Connections inherit it."""
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            for listener in (one for server in self.servers for one in server.sockets):
                milliseconds = int(self._app.pace.send_timeout * 1000)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.open_streams.drop_all()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal that stops us is obeyed, and not raised again afterwards: stopping well is no failure."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self.handle_exit, signum, None)
        try:
            yield
        finally:
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(signum)

    @property
    def port(self) -> int:
        """The port that it listens on, also when the system chose it."""
        return cast(int, self.servers[0].sockets[0].getsockname()[1])


def build_server(settings: Settings, app: ChatApp | None = None) -> ChatServer:
    chat_app = app or create_app(settings)
    config = uvicorn.Config(
        chat_app,
        host=settings.host,
        port=settings.port,
        http=ChatProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings.shutdown_grace),
        h11_max_incomplete_event_size=None,
        backlog=2048,
    )
    return ChatServer(chat_app, config)


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM, on an event loop of its own. Raises ConfigError or Unavailable at the start."""
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    """Connects before uvicorn begins, which would answer a wrong setting with a traceback."""
    async with open_resources(settings) as house:

        @asynccontextmanager
        async def the_house(_: Settings) -> AsyncIterator[Resources]:
            yield house

        await build_server(settings, create_app(settings, open_house=the_house)).serve()
