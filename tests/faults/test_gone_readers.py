"""I18: a reader that goes leaves nothing behind, however it goes; also one whose host vanished."""

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
from tests.faults import hasty_api
from tests.faults.figures import record
from tests.faults.gauges import open_files, open_streams
from tests.faults.raw_readers import connect
from tests.faults.scale import scale
from tests.faults.written_house import Beats, House, open_house
from tests.servers.redis import RedisNode
from tests.servers.vanishing import vanish
from tests.speed import limit

CYCLES, AT_ONCE = scale(300, 10_000), 50
VANISHED = scale(20, 500)
FORGOTTEN_WITHIN = limit(scale(hasty_api.SEND_TIMEOUT + 18, 45.0))
POOL = 2


@pytest.mark.timeout(scale(120, 3600))
async def test_readers_that_come_and_go_leave_nothing_behind(
    postgres_dsn: str, private_redis: RedisNode, tmp_path: Path, chance: Random
) -> None:
    servers, over = Servers(postgres_dsn, private_redis.dsn), asyncio.Event()
    async with (
        open_house(servers, tmp_path, REDIS_POOL_SIZE=str(POOL), DB_POOL_SIZE=str(POOL)) as house,
        Redis.from_url(private_redis.dsn) as redis,
        asyncio.TaskGroup() as group,
    ):
        beats = Beats(*await house.open_task())
        group.create_task(beats.write(over))
        for _ in range(4):
            await crowd(house, beats.task, chance)
        base = await at_rest(house, redis, beats.task, (0,))
        for _ in range(CYCLES // AT_ONCE):
            await crowd(house, beats.task, chance)
        with ExitStack() as sockets:
            for _ in range(VANISHED):
                vanish(sockets.enter_context(await connect(house.api, beats.task, house.user)))
            after = await at_rest(house, redis, beats.task, base)
        over.set()
    record(
        "I18",
        f"{CYCLES} readers came and went, {VANISHED} vanished: "
        f"open streams, open files, Redis clients {base} to {after}",
    )
    assert not _grown(base, after)


async def at_rest(house: House, redis: Redis, task: str, awaited: tuple[int, ...]) -> tuple[int, ...]:
    """Open streams, open files and Redis clients: as soon as they are no more than awaited, or when time is up."""
    never = {"last-event-id": f"{await house.fence_of(task)}-999999"}
    until = time.monotonic() + FORGOTTEN_WITHIN
    while True:
        questions = [house.http.get(f"/api/chat/tasks/{task}/stream", headers=never) for _ in range(10 * POOL)]
        assert {answer.status_code for answer in await asyncio.gather(*questions)} == {410}  # and the pools are full
        clients: int = (await redis.info("clients"))["connected_clients"]
        held = await open_streams(house.http), open_files(house.api), clients
        if not _grown(awaited, held[: len(awaited)]) or time.monotonic() > until:
            return held
        await asyncio.sleep(0.1)


def _grown(base: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """By more than 2 %, and of few things by more than one; streams not at all."""
    much = (now - then > max(1, then * 0.02) for then, now in zip(base, after, strict=True))
    return after[0] > base[0] or any(much)


async def crowd(house: House, task: str, chance: Random) -> None:
    await asyncio.gather(*(come_and_go(house, task, chance) for _ in range(AT_ONCE)))


async def come_and_go(house: House, task: str, chance: Random) -> None:
    """Goes with a FIN, with a RST, or with a FIN for one direction alone; before or after the first bytes."""
    connection = await connect(house.api, task, house.user)
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
