"""Tests of readers while Redis or the pub/sub connection fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from backend.chat.models import Task
from backend.chat.protocol.chunks import END
from backend.chat.streams.hub import Hub
from backend.chat.streams.streams import Streams
from backend.errors import CursorExpired, StreamCut, TaskExpired
from backend.ids import StreamId
from backend.redis import open_redis
from tests.integration.reader_rig import ReaderRig, key_of, reader_rig, text_of, turn_of, until
from tests.servers.redis import RedisNode
from tests.sse_client import StrictClient


async def _tail(rig: ReaderRig, task: Task, client: StrictClient, chunks: int) -> asyncio.Task[StrictClient]:
    reading = asyncio.create_task(rig.read(task, client))

    async def arrived() -> bool:
        return len(client.chunks) >= chunks

    await until(arrived)
    return reading


async def _healthy(hub: Hub) -> bool:
    return hub.healthy


async def test_readers_get_each_chunk_once_while_the_pubsub_connection_is_killed_repeatedly(
    private_redis: RedisNode,
) -> None:
    async with reader_rig(private_redis.dsn) as rig:
        tasks = [rig.task() for _ in range(5)]
        readings = [asyncio.create_task(rig.read(task, StrictClient())) for task in tasks for _ in range(2)]
        chunks = turn_of(300)
        for n, chunk in enumerate(chunks):
            for task in tasks:
                await rig.write(task, [chunk], first=n + 1)
            if n % 30 == 10:
                await rig.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        for task in tasks:
            await rig.write(task, [END], first=len(chunks) + 1)
        for client in await asyncio.gather(*readings):
            assert client.text == text_of(300)
        assert rig.hub.following == 0


async def test_a_flushed_redis_cuts_the_readers(private_redis: RedisNode) -> None:
    async with reader_rig(private_redis.dsn) as rig:
        task, waiting = rig.task(), rig.task()
        await rig.write(task, turn_of(3)[:4])
        client = StrictClient()
        reading = await _tail(rig, task, client, 4)
        waiting_reader = asyncio.create_task(rig.read(waiting, StrictClient()))
        await rig.redis.flushall()
        with pytest.raises(StreamCut):
            await reading
        with pytest.raises(CursorExpired):
            await rig.read(task, client)
        await rig.write(waiting, [*turn_of(3), END])
        assert (await waiting_reader).text == text_of(3), "a reader without chunks has lost nothing"


async def test_readers_continue_after_a_restart_of_redis_with_its_data(private_redis: RedisNode) -> None:
    async with reader_rig(private_redis.dsn) as rig:
        task = rig.task()
        chunks = turn_of(6)
        await rig.write(task, chunks[:4])
        reading = await _tail(rig, task, StrictClient(), 4)
        await private_redis.stop()

        async def unhealthy() -> bool:
            return not rig.hub.healthy

        await until(unhealthy)
        await private_redis.start()
        await rig.write(task, [*chunks[4:], END], first=5)
        assert (await reading).text == text_of(6)
        await until(lambda: _healthy(rig.hub))


async def test_a_hub_that_starts_without_redis_is_unhealthy_and_recovers(private_redis: RedisNode) -> None:
    await private_redis.stop()
    async with open_redis(private_redis.dsn, pool_size=2) as redis:
        streams = Streams(redis, ttl=60)

        async with Hub(private_redis.dsn, streams, _no_tasks, tick=0.05) as hub:
            assert not hub.healthy
            await private_redis.start()
            await until(lambda: _healthy(hub))


@pytest.mark.parametrize("scheme", ["password", "database"])
async def test_the_hub_accepts_the_dsns_of_redis_py(private_redis: RedisNode, scheme: str) -> None:
    async with open_redis(private_redis.dsn, pool_size=2) as redis:
        dsn = private_redis.dsn
        if scheme == "password":
            await redis.execute_command("ACL", "SETUSER", "reader", "on", ">s%cret", "~*", "&*", "+@all")
            dsn = dsn.replace("redis://", "redis://reader:s%25cret@")
        else:
            dsn = dsn.removesuffix("/0") + "/3"
    async with reader_rig(dsn) as rig:
        await until(lambda: _healthy(rig.hub))
        task = rig.task()
        reading = asyncio.create_task(rig.read(task, StrictClient()))
        for n, chunk in enumerate([*turn_of(3), END], 1):
            await rig.write(task, [chunk], first=n)
        assert (await reading).text == text_of(3)


async def test_a_hub_whose_login_is_refused_is_unhealthy(private_redis: RedisNode) -> None:
    dsn = private_redis.dsn.replace("redis://", "redis://nobody:wrong@")
    async with (
        open_redis(private_redis.dsn, pool_size=2) as redis,
        Hub(dsn, Streams(redis, ttl=60), _no_tasks, tick=0.05) as hub,
    ):
        assert not hub.healthy


async def _no_tasks(_: object) -> list[Task]:
    return []


async def test_an_ended_answer_that_lost_its_last_entries_is_never_served_as_complete(redis_dsn: str) -> None:
    """After a failover to a lagging replica, the stream lacks its last entries while the row has ended."""
    async with reader_rig(redis_dsn) as rig:
        task, client = rig.task(), StrictClient()
        await rig.write(task, turn_of(10)[:8])
        reading = await _tail(rig, task, client, 4)
        ended = rig.rows[task.id] = replace(rig.end(task), checkpoint=StreamId(task.fence, 13))
        with pytest.raises(StreamCut):
            await reading
        with pytest.raises(CursorExpired):
            await rig.read(ended, client)
        with pytest.raises(TaskExpired):
            await rig.read(ended, StrictClient())


@pytest.mark.parametrize("kept", [10, 4])
async def test_an_end_is_made_from_the_row_only_if_the_answer_is_complete(redis_dsn: str, kept: int) -> None:
    async with reader_rig(redis_dsn) as rig:
        task = rig.task()
        chunks = turn_of(5)[:-1]
        await rig.write(task, chunks)
        ended = replace(rig.end(task), checkpoint=StreamId(task.fence, len(chunks)))
        rig.rows[task.id] = ended
        seen = await rig.read(ended, StrictClient(), at_most=2)
        await rig.redis.xtrim(key_of(task), maxlen=kept, approximate=False)
        if kept == len(chunks):
            assert (await rig.read(ended, seen)).text == text_of(5)
        else:
            with pytest.raises(CursorExpired):
                await rig.read(ended, seen)
