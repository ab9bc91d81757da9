"""A TCP proxy between a client and a server that fails on demand.

async with FaultProxy.before("redis://127.0.0.1:6379/0") as proxy:
    client = connect(proxy.dsn)
    await proxy.switch(Mode.LOSE_REPLIES)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from typing import Self

from yarl import URL

from tests.servers.ports import free_port

_PORTS = {"redis": 6379, "postgresql": 5432, "postgres": 5432, "amqp": 5672}


class Mode(StrEnum):
    PASS = "pass"
    LOSE_REPLIES = "lose_replies"  # requests arrive; the first reply is dropped and its connection closed
    BLACKHOLE = "blackhole"  # no bytes move, new connections are accepted; the bytes move again with PASS
    SILENCE = "silence"  # open and new connections read and never answer; those connections stay silent with PASS
    RESET = "reset"  # open and new connections get a RST
    DOWN = "down"  # new connections are refused, open ones are reset
    REFUSE = "refuse"  # new connections are refused, open ones live on, as in a rolling restart


class FaultProxy:
    """Forwards from a free port on loopback to `host:port`, or to the Unix socket at the path `host` if `port` is 0.
    `switch` changes how it fails, for open connections, too."""

    def __init__(self, host: str, port: int, *, at: tuple[str, int] | None = None) -> None:
        """`at` is the address of the proxy itself; otherwise it is a free port on 127.0.0.1."""
        self._target = (host, port)
        self._dsn = ""
        self._mode = Mode.PASS
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._listener: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._over = False
        self.host, self.port = at or ("127.0.0.1", free_port())
        self._accepted = self._lost = 0

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await self._stop_listening()
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await asyncio.sleep(0)  # lets the transports close their sockets

    @staticmethod
    def before(dsn: str, *, host: str = "127.0.0.1") -> FaultProxy:
        """Returns a proxy for the server that a DSN names, or for a cluster. The proxy's `dsn` leads through it.

        It listens at `host`. A proxy for a cluster has an address of its own on loopback.
        """
        if "+cluster://" in dsn:
            return ClusterProxy(dsn)
        url = URL(dsn)
        proxy = FaultProxy(*_target_of(url), at=(host, free_port()))
        if "host" in url.query:
            proxy._dsn = str(url.update_query(sslmode="disable").without_query_params("host").with_host(proxy.host))
        elif url.scheme == "unix":
            proxy._dsn = f"redis://{proxy.host}/{url.query.get('db', '0')}"
        else:
            proxy._dsn = dsn
        return proxy

    @property
    def dsn(self) -> str:
        """The DSN that was passed to `before`, with this proxy's address."""
        return str(URL(self._dsn).with_host(self.host).with_port(self.port))

    @property
    def accepted(self) -> int:
        """The number of connections so far."""
        return self._accepted

    @property
    def lost(self) -> int:
        """The number of replies that were lost so far."""
        return self._lost

    @property
    def mode(self) -> Mode:
        return self._mode

    def lead_to(self, dsn: str) -> None:
        """Leads new connections to the server of that DSN. Open ones stay, as behind a name or a proxy."""
        self._target = _target_of(URL(dsn))

    async def switch(self, mode: Mode) -> None:
        """Changes the mode. Returns when it applies to open connections."""
        self._mode = mode
        if mode is Mode.BLACKHOLE:
            self._flowing.clear()
        else:
            self._flowing.set()
        if mode is Mode.SILENCE:
            self._silent |= self._clients
        if mode in (Mode.DOWN, Mode.REFUSE):
            await self._stop_listening()
        elif self._listener is None:
            await self._listen()
        if mode in (Mode.RESET, Mode.DOWN):
            for client in list(self._clients):
                _reset(client)

    @asynccontextmanager
    async def failing(self, mode: Mode) -> AsyncIterator[None]:
        await self.switch(mode)
        try:
            yield
        finally:
            await self.switch(Mode.PASS)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, self.host, self.port)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        if self._over:
            _reset(writer)
            return
        job = asyncio.ensure_future(self._serve(reader, writer))
        self._jobs.add(job)
        job.add_done_callback(partial(self._forget, writer))

    def _forget(self, client: asyncio.StreamWriter, job: asyncio.Task[None]) -> None:
        """Closes the connection, even if the job was cancelled before it began."""
        self._jobs.discard(job)
        if self._over:
            client.transport.abort()  # close() would wait for a client that no longer reads
        else:
            client.close()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._mode in (Mode.RESET, Mode.DOWN):
            _reset(client)
            return
        self._clients.add(client)
        if self._mode is Mode.SILENCE:
            self._silent.add(client)
        server: asyncio.StreamWriter | None = None
        pumps: list[asyncio.Task[None]] = []
        try:
            replies, server = await self._connect()
            pumps = [
                asyncio.ensure_future(self._pump(reader, server, client, replies=False)),
                asyncio.ensure_future(self._pump(replies, client, client, replies=True)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            _reset(client)
        finally:
            self._clients.discard(client)
            self._silent.discard(client)
            for pump in pumps:
                pump.cancel()
            client.close()  # before the first await, where a cancel may arrive
            if server is not None:
                server.transport.abort()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._target
        return await (asyncio.open_connection(host, port) if port else asyncio.open_unix_connection(host))

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._flowing.wait()
                if client in self._silent:
                    continue
                if replies and self._mode is Mode.LOSE_REPLIES:
                    self._lost += 1
                    return
                sink.write(data)
                await sink.drain()
        if replies and client in self._silent:
            await asyncio.Event().wait()  # a silent client must not notice that the server closed the connection


class ClusterProxy(FaultProxy):
    """A proxy before each node of a cluster, at a loopback address of its own, with the node's port.

    The nodes must hide their hosts, as those of `redis_cluster` do: a client then reaches each at the host where it
    asked.
    """

    def __init__(self, dsn: str) -> None:
        super().__init__("", 0, at=(f"127.{'.'.join(str(1 + byte % 250) for byte in os.urandom(3))}", 0))
        self._nodes = [
            FaultProxy("127.0.0.1", port, at=(self.host, port)) for port in map(int, re.findall(r":(\d+)", dsn))
        ]
        self._dsn = dsn.replace("127.0.0.1", self.host)

    async def __aenter__(self) -> Self:
        for node in self._nodes:
            await node.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self._nodes:
            await node.__aexit__()

    @property
    def dsn(self) -> str:
        return self._dsn

    @property
    def accepted(self) -> int:
        return sum(node.accepted for node in self._nodes)

    @property
    def lost(self) -> int:
        return sum(node.lost for node in self._nodes)

    async def switch(self, mode: Mode) -> None:
        self._mode = mode
        await asyncio.gather(*(node.switch(mode) for node in self._nodes))


def _target_of(url: URL) -> tuple[str, int]:
    """Returns the host and port of a server, or the path of its socket and 0."""
    if "host" in url.query:  # a PostgreSQL with its socket in that folder
        return f"{url.query['host']}/.s.PGSQL.{url.port or 5432}", 0
    if url.scheme == "unix":
        return url.path, 0
    return url.host or "127.0.0.1", url.port or _PORTS[url.scheme]


def _reset(client: asyncio.StreamWriter) -> None:
    """Closes with a RST instead of a FIN."""
    sock = client.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()
