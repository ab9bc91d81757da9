"""I17, I18: readers that take nothing harm themselves alone; one that goes leaves nothing behind, however it goes."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from tests.e2e.sse import counted, text_of
from tests.e2e.stack import Child, Servers, Stack, bearer, new_user, open_stack
from tests.e2e.talk import asked, followed, open_session
from tests.faults.figures import record
from tests.faults.scale import FULL, scale

STALLED, HEALTHY = scale(10, 200), scale(4, 50)
CYCLES, AT_ONCE = scale(300, 10_000), 50
CLOSED_WITHIN = 45.0
pytestmark = pytest.mark.timeout(scale(180, 3600))


@pytest.fixture
async def roomy(servers: Servers, tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(
        servers, tmp_path, MAX_OPEN_STREAMS="10000", MAX_RUNNING_TURNS="1000", LOG_LEVEL="WARNING"
    ) as stack:
        yield stack


def rss(child: Child) -> float:
    """In MB."""
    return int(Path(f"/proc/{child.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


def open_files(child: Child) -> int:
    return len(list(Path(f"/proc/{child.process.pid}/fd").iterdir()))


async def open_streams(child: Child) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        metrics = (await http.get(f"{child.url}/metrics")).text
    match = re.search(r"^sse_open_streams (\d+)", metrics, re.MULTILINE)
    assert match is not None
    return int(match[1])


async def connect(api: Child, task: str, user: str, *, buffer: int | None = None) -> socket.socket:
    """A connection on which a stream was asked for, and nothing read."""
    loop, parts = asyncio.get_running_loop(), urlsplit(api.url)
    connection = socket.socket()
    connection.setblocking(False)
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    await loop.sock_connect(connection, (parts.hostname, parts.port))
    head = [f"GET /api/chat/tasks/{task}/stream HTTP/1.1", f"host: {parts.netloc}"]
    head += [f"{name}: {value}" for name, value in bearer(user).items()]
    await loop.sock_sendall(connection, "\r\n".join([*head, "", ""]).encode())
    return connection


async def seconds_of_healthy(client: httpx.AsyncClient) -> float:
    """How long HEALTHY short answers take, all read at once, each exact."""

    async def one() -> None:
        session = await open_session(client)
        async with asked(client, session, "/stream 100 10") as stream:
            assert text_of(await stream.rest()) == counted(100)

    began = time.monotonic()
    async with asyncio.timeout(60):
        await asyncio.gather(*(one() for _ in range(HEALTHY)))
    return time.monotonic() - began


async def test_readers_that_take_nothing_are_dropped_and_harm_nobody(roomy: Stack) -> None:
    api, user = roomy.apis[0], new_user()
    async with roomy.client(user) as client:
        session = await open_session(client)
        async with asked(client, session, "/stream 1000000") as long:
            await long.until(3)
        async with followed(client, long.task_id) as stream:
            await stream.rest()
        alone = [await seconds_of_healthy(client) for _ in range(2)]
        before = rss(api)
        with ExitStack() as sockets:
            for _ in range(STALLED):
                sockets.enter_context(await connect(api, long.task_id, user, buffer=4096))
            async with asyncio.timeout(30):
                while await open_streams(api) < STALLED:
                    await asyncio.sleep(0.1)
            stalled_at = time.monotonic()
            beside = [await seconds_of_healthy(client)]
            more = rss(api) - before
            async with asyncio.timeout(CLOSED_WITHIN):
                while FULL and await open_streams(api) > 0:  # it takes 30 s; test_api_slow_readers is quicker
                    await asyncio.sleep(0.2)
            closed = time.monotonic() - stalled_at if FULL else 0
    assert more < 100
    record(
        "I17",
        f"{STALLED} readers that take nothing: closed after {closed:.0f} s, RSS +{more:.0f} MB; {HEALTHY} answers "
        f"beside them took {min(beside):.2f} s (alone {min(alone):.2f} s)",
    )


async def test_readers_that_come_and_go_leave_nothing_behind(roomy: Stack, chance: Random) -> None:
    api, user = roomy.apis[0], new_user()
    async with roomy.client(user) as client, Redis.from_url(roomy.servers.redis) as redis:
        session = await open_session(client)
        async with asked(client, session, "/stream 1000000 100") as stream:
            await stream.until(3)
            task = stream.task_id
            await asyncio.gather(*(come_and_go(api, task, user, chance) for _ in range(AT_ONCE)))
            files, clients = open_files(api), await _clients(redis)
            for _ in range(CYCLES // AT_ONCE):
                await asyncio.gather(*(come_and_go(api, task, user, chance) for _ in range(AT_ONCE)))
            async with asyncio.timeout(30):
                while await open_streams(api) > 1 or open_files(api) > files + 3:
                    await asyncio.sleep(0.1)
            after = open_files(api), await _clients(redis)
            await client.post(f"/api/chat/tasks/{task}/cancel")
    assert after[0] <= files + 3
    assert after[1] <= clients + 3
    record(
        "I18",
        f"{CYCLES} readers came and went: open files {files} to {after[0]}, Redis clients {clients} to {after[1]}",
    )


async def come_and_go(api: Child, task: str, user: str, chance: Random) -> None:
    """Goes with a FIN, with a RST, or with a FIN for one direction alone; before or after the first bytes."""
    connection = await connect(api, task, user)
    with connection:
        if chance.random() < 0.7:
            async with asyncio.timeout(10):
                await asyncio.get_running_loop().sock_recv(connection, 100)
        how = chance.choice(("fin", "rst", "half"))
        if how == "rst":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "half":
            connection.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.01)


async def _clients(redis: Redis) -> int:
    clients: int = (await redis.info("clients"))["connected_clients"]
    return clients
