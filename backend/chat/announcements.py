"""One raw pub/sub connection: RESP through `hiredis.Reader`, no await and no object of ours per message."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

CONNECT_LIMIT = 5.0


class Announcements(asyncio.Protocol):
    """A connection that is subscribed to channels. `on_message(channel, payload)`; `on_confirmed(channel)` when the
    newest SUBSCRIBE of a channel was confirmed. `closed` is done when the connection is lost."""

    def __init__(
        self,
        on_message: Callable[[bytes, bytes], None],
        on_confirmed: Callable[[bytes], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.heard_at = loop.time()
        self._clock = loop.time
        self._on_message = on_message
        self._on_confirmed = on_confirmed
        self._reader = hiredis.Reader()
        self._unconfirmed: dict[bytes, int] = {}
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.Future[None] = loop.create_future()
        self._replies_due = 0

    @classmethod
    async def connect(
        cls, dsn: str, on_message: Callable[[bytes, bytes], None], on_confirmed: Callable[[bytes], None]
    ) -> Announcements:
        """Connects and logs in. Raises OSError (also when Redis refuses the login, or takes over 5 s)."""
        where: dict[str, Any] = cast("dict[str, Any]", parse_url(dsn))
        loop = asyncio.get_running_loop()
        made = cls(on_message, on_confirmed)
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                if "path" in where:
                    await loop.create_unix_connection(lambda: made, where["path"])
                else:
                    host, port = where.get("host", "localhost"), where.get("port", 6379)
                    await loop.create_connection(lambda: made, host, port, ssl=_tls(where))
                await made._log_in(where)
        except BaseException:
            made.close()
            raise
        return made

    async def _log_in(self, where: dict[str, Any]) -> None:
        commands: list[list[bytes]] = []
        if password := where.get("password"):
            user = where.get("username")
            commands.append([b"AUTH", *([user.encode()] if user else []), password.encode()])
        if where.get("db"):
            commands.append([b"SELECT", str(where["db"]).encode()])
        commands.append([b"PING"])
        self._replies_due = len(commands)
        self._send(commands)
        await self._greeting

    def subscribe(self, channels: Iterable[bytes]) -> None:
        """Each channel is confirmed when as many confirmations came as SUBSCRIBEs were sent for it."""
        commands = []
        for channel in channels:
            self._unconfirmed[channel] = self._unconfirmed.get(channel, 0) + 1
            commands.append([b"SUBSCRIBE", channel])
        self._send(commands)

    def unsubscribe(self, channel: bytes) -> None:
        self._send([[b"UNSUBSCRIBE", channel]])

    def ping(self) -> None:
        """The answer moves `heard_at`."""
        self._send([[b"PING"]])

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _send(self, commands: Iterable[list[bytes]]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            pack: Any = hiredis.pack_command  # its stub takes one argument
            self._transport.write(b"".join(pack(tuple(command)) for command in commands))

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._refuse("Redis closed the connection")
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._clock()
        self._reader.feed(data)
        gets = self._reader.gets
        try:
            while (reply := gets()) is not False:
                if type(reply) is list and reply[0] == b"message":
                    self._on_message(reply[1], reply[2])
                else:
                    self._take(reply)
        except hiredis.ProtocolError:
            self.close()

    def _take(self, reply: Any) -> None:
        if type(reply) is list:
            if reply[0] == b"subscribe":
                self._confirm(reply[1])
        elif isinstance(reply, Exception):
            self._refuse(f"Redis refused the login: {reply}")
            self.close()
        elif not self._greeting.done():
            self._replies_due -= 1
            if not self._replies_due:
                self._greeting.set_result(None)

    def _refuse(self, why: str) -> None:
        if not self._greeting.done():
            self._greeting.set_exception(ConnectionError(why))
            self._greeting.exception()  # nobody may be waiting for it any more

    def _confirm(self, channel: bytes) -> None:
        missing = self._unconfirmed.get(channel, 0) - 1
        if missing > 0:
            self._unconfirmed[channel] = missing
            return
        self._unconfirmed.pop(channel, None)
        self._on_confirmed(channel)


def _tls(where: dict[str, Any]) -> ssl.SSLContext | None:
    if where.get("connection_class") is not SSLConnection:
        return None
    context = ssl.create_default_context(cafile=where.get("ssl_ca_certs"))
    if where.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif where.get("ssl_check_hostname") in (False, "false", "False"):
        context.check_hostname = False
    return context
