"""A raw pub/sub connection: RESP through `hiredis.Reader`, without an await or a wrapper object for each message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

import hiredis
from redis.crc import key_slot

from backend.chat.keys import HUB_CHANNEL
from backend.redis import finder_of
from backend.redis_address import Place, parse_redis_url, place_name, place_of_redis, tls_of
from backend.redis_moves import group_at, refusal_of

CONNECT_LIMIT = 5.0
"""Seconds to connect and log in."""
NO_CHANNELS = "NOPERM: the user of REDIS_URL may not subscribe; add channels to its ACL: docs/redis.md"


class PubSubConnection(asyncio.Protocol):
    """A connection that is subscribed to channels.

    Calls `on_message(channel, payload)` for each message, and `on_confirmed(channel)` when the newest SUBSCRIBE of a
    channel is confirmed. `closed` is done when the connection is lost; its result is what the server said before, or
    None. `received_at` is the time of the last data, by the event loop's clock.

    With `on_moved` the channels are those of a node of a cluster (SSUBSCRIBE). It gets each slot that the node has no
    longer: its channels are not subscribed any more.
    """

    def __init__(
        self,
        on_message: Callable[[bytes, bytes], None],
        on_confirmed: Callable[[bytes], None],
        on_moved: Callable[[int], None] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[str | None] = loop.create_future()
        self.received_at = loop.time()
        self._clock = loop.time
        self._on_message = on_message
        self._on_confirmed = on_confirmed
        self._reader = hiredis.Reader()
        self._on_moved = on_moved
        sharded = b"" if on_moved is None else b"s"
        self._message, self._confirms, self._leaves = sharded + b"message", sharded + b"subscribe", b"sunsubscribe"
        self._joins, self._parts = (sharded.upper() + command for command in (b"SUBSCRIBE", b"UNSUBSCRIBE"))
        self._unconfirmed: dict[bytes, int] = {}
        self._leaving: dict[bytes, int] = {}
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.Future[None] = loop.create_future()
        self._asked: deque[bytes] = deque()
        self._last_words: str | None = None

    @classmethod
    async def connect(
        cls,
        dsn: str,
        on_message: Callable[[bytes, bytes], None],
        on_confirmed: Callable[[bytes], None],
        on_moved: Callable[[int], None] | None = None,
        place: Place | None = None,
    ) -> PubSubConnection:
        """Connects, logs in and subscribes to HUB_CHANNEL, which shows that subscribing is permitted.

        `place` is a node of the cluster that the URL names; otherwise the URL says where the server is.
        Raises OSError, even if Redis refuses one of these, is a replica, or takes more than CONNECT_LIMIT. Raises
        ConfigError if the URL cannot be used.
        """
        address = parse_redis_url(dsn)
        loop = asyncio.get_running_loop()
        made = cls(on_message, on_confirmed, on_moved)
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                if "path" in address:
                    await loop.create_unix_connection(lambda: made, address["path"])
                else:
                    host, port = place or (address.get("host", "localhost"), address.get("port", 6379))
                    if place is None and (finder := finder_of(dsn)) is not None:
                        host, port = await finder.find()
                    await loop.create_connection(lambda: made, host, port, ssl=tls_of(address))
                await made._log_in(address)
        except BaseException:
            made.close()
            raise
        group_at(place_of_redis(dsn) if place is None else place_name(*place)).add(made)
        return made

    async def _log_in(self, address: dict[str, Any]) -> None:
        commands: list[list[bytes]] = []
        if password := address.get("password"):
            user = address.get("username")
            commands.append([b"AUTH", *([user.encode()] if user else []), password.encode()])
        if address.get("db"):
            commands.append([b"SELECT", str(address["db"]).encode()])
        commands += [[b"HELLO", b"2"], [b"PING"], [b"SUBSCRIBE", HUB_CHANNEL.encode()]]
        self._asked.extend(command[0] for command in commands)
        self._send(commands)
        await self._greeting

    def subscribe(self, channels: Iterable[bytes]) -> None:
        """Subscribes to channels. Each is confirmed when every SUBSCRIBE that was sent for it has its confirmation."""
        commands = []
        for channel in channels:
            self._unconfirmed[channel] = self._unconfirmed.get(channel, 0) + 1
            commands.append([self._joins, channel])
        self._send(commands)

    def unsubscribe(self, channel: bytes) -> None:
        if self._on_moved is not None:
            self._leaving[channel] = self._leaving.get(channel, 0) + 1
        self._send([[self._parts, channel]])

    def ping(self) -> None:
        """Sends a PING, whose answer moves `received_at`."""
        self._send([[b"PING"]])

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    cut = close

    def _send(self, commands: Iterable[list[bytes]]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            pack: Any = hiredis.pack_command  # its stub takes one argument
            self._transport.write(b"".join(pack(tuple(command)) for command in commands))

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail_login("Redis closed the connection")
        if not self.closed.done():
            self.closed.set_result(self._last_words)

    def data_received(self, data: bytes) -> None:
        self.received_at = self._clock()
        self._reader.feed(data)
        gets = self._reader.gets
        try:
            while (reply := gets()) is not False:
                if type(reply) is list and reply[0] == self._message:
                    self._on_message(reply[1], reply[2])
                else:
                    self._take(reply)
        except hiredis.ProtocolError:
            self.close()

    def _take(self, reply: Any) -> None:
        if self._asked:
            self._take_greeting(reply)
        elif isinstance(reply, Exception):
            if self._on_moved is not None and str(reply).startswith("MOVED "):
                self._move(int(str(reply).split(" ")[1]))
                return
            self._last_words = _words(b"SUBSCRIBE", reply)
            self.close()
        elif type(reply) is list and reply[0] == self._confirms:
            self._confirm(reply[1])
        elif type(reply) is list and reply[0] == self._leaves:
            self._left(reply[1])

    def _take_greeting(self, reply: Any) -> None:
        command = self._asked.popleft()
        if command == b"HELLO":  # a server before version 6 does not know it, and a user may not be permitted to use it
            refusal = refusal_of(reply, in_cluster=self._on_moved is not None)
        else:
            refusal = _words(command, reply) if isinstance(reply, Exception) else None
        if refusal is not None:
            self._asked.clear()  # no further replies to the greeting are expected
            self._fail_login(refusal)
            self.close()
        elif not self._asked:
            self._greeting.set_result(None)

    def _fail_login(self, reason: str) -> None:
        if not self._greeting.done():
            self._greeting.set_exception(ConnectionError(reason))
            self._greeting.exception()  # marked as retrieved, because nobody may wait for it now

    def _left(self, channel: bytes) -> None:
        """Takes the end of a channel of a node: because `unsubscribe` asked for it, or because the slot has moved."""
        asked = self._leaving.pop(channel, 0)
        if not asked:
            self._move(key_slot(channel))
        elif asked > 1:
            self._leaving[channel] = asked - 1

    def _move(self, slot: int) -> None:
        for counts in (self._unconfirmed, self._leaving):
            for channel in [channel for channel in counts if key_slot(channel) == slot]:
                del counts[channel]
        if self._on_moved is not None:
            self._on_moved(slot)

    def _confirm(self, channel: bytes) -> None:
        missing = self._unconfirmed.get(channel, 0) - 1
        if missing > 0:
            self._unconfirmed[channel] = missing
            return
        self._unconfirmed.pop(channel, None)
        self._on_confirmed(channel)


def _words(command: bytes, refusal: Exception) -> str:
    if command == b"SUBSCRIBE" and str(refusal).startswith("NOPERM"):
        return NO_CHANNELS
    return f"Redis refused {command.decode()}: {refusal}" if command in (b"AUTH", b"SELECT") else str(refusal)
