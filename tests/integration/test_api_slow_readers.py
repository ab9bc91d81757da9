"""Tests of clients that do not read. No executor runs; the tests write the streams themselves."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

from backend.api.timeouts import Timeouts
from backend.chat.keys import stream_key
from backend.chat.protocol.chunks import Start, StartStep, TextDelta, TextStart
from backend.chat.store import tasks
from backend.ids import SessionId, fence_of
from tests.integration.running_api import LIMIT, get, post, running_api, send_raw
from tests.servers.vanishing import vanish
from tests.speed import limit

QUICK = Timeouts(heartbeat_every=0.2, send_timeout=limit(1), tick=0.05)


async def test_a_client_that_reads_nothing_is_dropped_and_others_are_served(postgres_dsn: str, redis_dsn: str) -> None:
    async with running_api(postgres_dsn, redis_dsn, timeouts=QUICK, executor=False) as api, AsyncExitStack() as stack:
        id = await api.new_session()
        slow = stack.enter_context(socket.socket())
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", api.port))
        await loop.sock_sendall(slow, post(f"/api/chat/sessions/{id}/stream", b'{"message":"never read"}'))
        async with asyncio.timeout(LIMIT):
            while not len(api.app.open_streams):
                await asyncio.sleep(0.02)
        async with api.resources.database.connection() as c:
            task = await tasks.find_active_task(c, SessionId(id))
        assert task is not None
        healthy = asyncio.create_task(
            send_raw(api.port, get(f"/api/chat/tasks/{task.id}/stream"), until=b'"delta":"the last"')
        )
        writer = api.resources.flusher.writer(
            stream_key(task.session_id, task.id), fence_of(task.number, 1), create=True
        )
        await writer.append(Start(task.message_id), StartStep(), TextStart("t"))
        for _ in range(300):
            await writer.append(TextDelta("t", "x" * 50_000))
            await writer.drain()
        await writer.append(TextDelta("t", "the last"))
        await writer.drain()
        got = (await healthy).data
        assert got.count(b"x" * 1000) == 300 * 50
        async with asyncio.timeout(LIMIT):
            while len(api.app.open_streams):
                await asyncio.sleep(0.05)
        active = (await api.http.get(f"/api/chat/sessions/{id}")).json().get("active_stream")
        assert active is not None, "the turn continues without its reader"
        assert (await api.http.delete(f"/api/chat/sessions/{id}")).status_code == 204


async def test_a_client_whose_host_vanished_is_dropped_even_if_its_stream_is_quiet(
    postgres_dsn: str, redis_dsn: str
) -> None:
    """The host sends no FIN, RST or ACK. Heartbeats fit into the buffer of the kernel, so no send ever waits."""
    async with running_api(postgres_dsn, redis_dsn, timeouts=QUICK, executor=False) as api:
        id = await api.new_session()
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(post(f"/api/chat/sessions/{id}/stream", b'{"message":"for nobody"}'))
        async with asyncio.timeout(LIMIT):
            await reader.readuntil(b": keep-alive")
        assert len(api.app.open_streams) == 1
        vanish(writer.get_extra_info("socket"))
        async with asyncio.timeout(LIMIT):
            while len(api.app.open_streams):
                await asyncio.sleep(0.05)
        writer.close()
        assert (await api.http.delete(f"/api/chat/sessions/{id}")).status_code == 204
