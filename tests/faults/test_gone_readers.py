"""I18: a reader that disconnects leaves nothing behind, however it disconnects, even if its host vanished."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from redis.asyncio import Redis

from tests.e2e.stack import Servers
from tests.faults import short_timeout_api
from tests.faults.figures import record
from tests.faults.gauges import open_files, open_streams
from tests.faults.raw_readers import connect
from tests.faults.scale import scale
from tests.faults.written_api import TimestampStream, WrittenApi, open_written_api
from tests.servers.redis import RedisNode
from tests.servers.vanishing import vanish
from tests.speed import limit

CYCLES, AT_ONCE = scale(300, 10_000), 50
VANISHED = scale(20, 500)
FORGOTTEN_WITHIN = limit(scale(short_timeout_api.SEND_TIMEOUT + 18, 45.0))
POOL = 2


@pytest.mark.timeout(scale(120, 3600))
async def test_readers_that_disconnect_leave_nothing_behind(
    postgres_dsn: str, private_redis: RedisNode, tmp_path: Path, chance: Random
) -> None:
    servers, over = Servers(postgres_dsn, private_redis.dsn), asyncio.Event()
    async with (
        open_written_api(servers, tmp_path, REDIS_POOL_SIZE=str(POOL), DB_POOL_SIZE=str(POOL)) as written,
        Redis.from_url(private_redis.dsn) as redis,
        asyncio.TaskGroup() as group,
    ):
        stamped = TimestampStream(*await written.open_task())
        group.create_task(stamped.write(over))
        for _ in range(4):
            await connect_many(written, stamped.task, chance)
        base = await at_rest(written, redis, stamped.task, (0,))
        for _ in range(CYCLES // AT_ONCE):
            await connect_many(written, stamped.task, chance)
        with ExitStack() as sockets:
            for _ in range(VANISHED):
                vanish(sockets.enter_context(await connect(written.api, stamped.task, written.user)))
            after = await at_rest(written, redis, stamped.task, base)
        over.set()
    record(
        "I18",
        f"{CYCLES} readers came and went, {VANISHED} vanished: "
        f"open streams, open files, Redis clients {base} to {after}",
    )
    assert not _grown(base, after)


async def at_rest(written: WrittenApi, redis: Redis, task: str, awaited: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the numbers of open streams, open files and Redis clients. Waits up to FORGOTTEN_WITHIN seconds until
    they have fallen to those awaited."""
    never = {"last-event-id": f"{await written.fence_of(task)}-999999"}
    until = time.monotonic() + FORGOTTEN_WITHIN
    while True:
        questions = [written.http.get(f"/api/chat/tasks/{task}/stream", headers=never) for _ in range(10 * POOL)]
        assert {answer.status_code for answer in await asyncio.gather(*questions)} == {
            410
        }  # which also fills the pools
        clients: int = (await redis.info("clients"))["connected_clients"]
        held = await open_streams(written.http), open_files(written.api), clients
        if not _grown(awaited, held[: len(awaited)]) or time.monotonic() > until:
            return held
        await asyncio.sleep(0.1)


def _grown(base: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Returns True if a number grew by more than 2 % and by more than one, or the number of streams at all."""
    much = (now - then > max(1, then * 0.02) for then, now in zip(base, after, strict=True))
    return after[0] > base[0] or any(much)


async def connect_many(written: WrittenApi, task: str, chance: Random) -> None:
    await asyncio.gather(*(connect_and_leave(written, task, chance) for _ in range(AT_ONCE)))


async def connect_and_leave(written: WrittenApi, task: str, chance: Random) -> None:
    """Disconnects with a FIN, with a RST, or with a FIN in one direction, before or after the first bytes."""
    connection = await connect(written.api, task, written.user)
    with connection:
        if chance.random() < 0.7:
            async with asyncio.timeout(limit(20)):
                await asyncio.get_running_loop().sock_recv(connection, 100)
        how = chance.choice(("fin", "rst", "half"))
        if how == "rst":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "half":
            connection.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.01)
