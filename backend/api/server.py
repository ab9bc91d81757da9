"""uvicorn, adapted to streams that are open for hours.

At shutdown the server aborts open streams, because clients would take a clean end for the end of the answer.
"""

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
from backend.api.problems import error_response
from backend.api.sse import TRANSPORT
from backend.chat.resources import Resources
from backend.config import Settings
from backend.errors import BadRequest
from backend.garbage import resume_collector
from backend.listening import free_port
from backend.open_files import raise_open_files_limit
from backend.resources import open_resources

KEEP_ALIVE_S = 75
logger = logging.getLogger(__name__)


class _LingeringTransport:
    """The transport of one request. If the request has not arrived whole, `close` lets the rest arrive.

    A client that is still sending would otherwise get a reset, which discards the response that it has not read yet.
    """

    def __init__(self, protocol: ChatProtocol) -> None:
        self._protocol = protocol
        self._cycle = protocol.cycle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol.transport, name)

    def close(self) -> None:
        if self._cycle.more_body:
            self._protocol.linger()
        else:
            self._protocol.transport.close()


class ChatProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with three additions.

    Streams can reach the transport, request heads have a timeout, and a connection that is closed before the request
    has arrived whole discards the rest of it.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # RequestMiddleware logs each request once, without its query

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]
        if self._head_timer is None:
            self._start_head_timer()

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        super().on_headers_complete()
        self.cycle.transport = _LingeringTransport(self)  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._linger_timer is None:
            super().data_received(data)

    def linger(self) -> None:
        """Ends the response, then waits for the client to close the connection, at most as long as a body may take."""
        if not self.transport.is_closing() and self._linger_timer is None:
            self.transport.write_eof()
            timeout = cast(ChatApp, self.config.app).timeouts.body_timeout
            self._linger_timer = self.loop.call_later(timeout, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        answer = error_response(BadRequest("This is not a valid HTTP request."), "-")
        head = [b"HTTP/1.1 400 Bad Request\r\n"]
        head += [name + b": " + value + b"\r\n" for name, value in answer.raw_headers]
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", bytes(answer.body)]))
        self.transport.close()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(
            cast(ChatApp, self.config.app).timeouts.head_timeout, self.transport.abort
        )

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class ChatServer(uvicorn.Server):
    """The server. It stops in this order: abort streams, refuse new connections, answer open requests, disconnect."""

    def __init__(self, app: ChatApp, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._limit_unacknowledged_time()
        logger.info("API is listening", extra={"host": self.config.host, "port": self.port})
        resume_collector()

    def _limit_unacknowledged_time(self) -> None:
        """Closes connections whose client acknowledges nothing for `send_timeout`.

        Without this a vanished client would keep its stream slot. Heartbeats fit into the kernel's send buffer, and
        Linux retransmits them for 15 minutes. Connections inherit the option from the listening socket.
        """
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            for listener in (sock for server in self.servers for sock in server.sockets):
                milliseconds = int(self._app.timeouts.send_timeout * 1000)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.open_streams.drop_all()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stops at SIGINT or SIGTERM. Unlike uvicorn, does not raise the signal again, so the process exits with 0."""
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
        """The port that the server listens on, even if the system chose it (`port=0`)."""
        return cast(int, self.servers[0].sockets[0].getsockname()[1])


def build_server(settings: Settings, app: ChatApp | None = None) -> ChatServer:
    """Makes a server for `app`, or for a new application. Raises ConfigError."""
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
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.shutdown_grace),
        h11_max_incomplete_event_size=None,
        backlog=2048,
    )
    return ChatServer(chat_app, config)


def serve(settings: Settings) -> None:
    """Runs the API on a new event loop until SIGINT or SIGTERM. Raises ConfigError or Unavailable at the start."""
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    """Checks the port and connects before uvicorn starts, because uvicorn would not name a wrong setting."""
    free_port(settings.host, settings.port, "PORT")
    raise_open_files_limit()
    async with open_resources(settings) as resources:

        @asynccontextmanager
        async def already_open(_: Settings) -> AsyncIterator[Resources]:
            yield resources

        await build_server(settings, create_app(settings, connect=already_open)).serve()
