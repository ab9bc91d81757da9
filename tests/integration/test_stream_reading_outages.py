"""Readers while Redis, or only the pub/sub connection, is hurt."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from backend.chat.chunks import END
from backend.chat.following import Hub
from backend.chat.models import Task
from backend.chat.streams import Streams
from backend.errors import CursorExpired, StreamCut, TaskExpired
from backend.ids import StreamId
from backend.redis import open_redis
from tests.integration.reading_room import ReadingRoom, key_of, reading_room, text_of, turn_of, until
from tests.servers.redis import RedisNode
from tests.sse_client import StrictClient


async def _tail(room: ReadingRoom, task: Task, client: StrictClient, chunks: int) -> asyncio.Task[StrictClient]:
    reading = asyncio.create_task(room.read(task, client))

    async def there() -> bool:
        return len(client.chunks) >= chunks

    await until(there)
    return reading


async def _healthy(hub: Hub) -> bool:
    return hub.healthy


async def test_readers_stay_exact_while_the_pubsub_connection_is_killed_again_and_again(
    private_redis: RedisNode,
) -> None:
    async with reading_room(private_redis.dsn) as room:
        tasks = [room.task() for _ in range(5)]
        readings = [asyncio.create_task(room.read(task, StrictClient())) for task in tasks for _ in range(2)]
        chunks = turn_of(300)
        for n, chunk in enumerate(chunks):
            for task in tasks:
                await room.write(task, [chunk], first=n + 1)
            if n % 30 == 10:
                await room.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        for task in tasks:
            await room.write(task, [END], first=len(chunks) + 1)
        for client in await asyncio.gather(*readings):
            assert client.text == text_of(300)
        assert room.hub.following == 0


async def test_a_flushed_redis_cuts_the_readers(private_redis: RedisNode) -> None:
    async with reading_room(private_redis.dsn) as room:
        task, waiting = room.task(), room.task()
        await room.write(task, turn_of(3)[:4])
        client = StrictClient()
        reading = await _tail(room, task, client, 4)
        patient = asyncio.create_task(room.read(waiting, StrictClient()))
        await room.redis.flushall()
        with pytest.raises(StreamCut):
            await reading
        with pytest.raises(CursorExpired):
            await room.read(task, client)
        await room.write(waiting, [*turn_of(3), END])
        assert (await patient).text == text_of(3), "who had nothing has lost nothing"


async def test_readers_go_on_after_redis_was_restarted_with_its_data(private_redis: RedisNode) -> None:
    async with reading_room(private_redis.dsn) as room:
        task = room.task()
        chunks = turn_of(6)
        await room.write(task, chunks[:4])
        reading = await _tail(room, task, StrictClient(), 4)
        await private_redis.stop()

        async def unhealthy() -> bool:
            return not room.hub.healthy

        await until(unhealthy)
        await private_redis.start()
        await room.write(task, [*chunks[4:], END], first=5)
        assert (await reading).text == text_of(6)
        await until(lambda: _healthy(room.hub))


async def test_a_hub_that_starts_without_redis_says_so_and_recovers(private_redis: RedisNode) -> None:
    await private_redis.stop()
    async with open_redis(private_redis.dsn, pool_size=2) as redis:
        streams = Streams(redis, ttl=60)

        async with Hub(private_redis.dsn, streams, _nobody, tick=0.05) as hub:
            assert not hub.healthy
            await private_redis.start()
            await until(lambda: _healthy(hub))


@pytest.mark.parametrize("scheme", ["password", "database"])
async def test_the_hub_speaks_the_dsns_that_redis_py_does(private_redis: RedisNode, scheme: str) -> None:
    async with open_redis(private_redis.dsn, pool_size=2) as redis:
        dsn = private_redis.dsn
        if scheme == "password":
            await redis.execute_command("ACL", "SETUSER", "reader", "on", ">s%cret", "~*", "&*", "+@all")
            dsn = dsn.replace("redis://", "redis://reader:s%25cret@")
        else:
            dsn = dsn.removesuffix("/0") + "/3"
    async with reading_room(dsn) as room:
        await until(lambda: _healthy(room.hub))
        task = room.task()
        reading = asyncio.create_task(room.read(task, StrictClient()))
        for n, chunk in enumerate([*turn_of(3), END], 1):
            await room.write(task, [chunk], first=n)
        assert (await reading).text == text_of(3)


async def test_a_refused_login_is_unhealthy(private_redis: RedisNode) -> None:
    dsn = private_redis.dsn.replace("redis://", "redis://nobody:wrong@")
    async with (
        open_redis(private_redis.dsn, pool_size=2) as redis,
        Hub(dsn, Streams(redis, ttl=60), _nobody, tick=0.05) as hub,
    ):
        assert not hub.healthy


async def _nobody(_: object) -> list[Task]:
    return []


async def test_an_ended_answer_whose_last_entries_redis_lost_is_never_served_as_the_whole(redis_dsn: str) -> None:
    """As after a failover to a replica that lagged: the stream is a beginning without a gap, the row has the end."""
    async with reading_room(redis_dsn) as room:
        task, client = room.task(), StrictClient()
        await room.write(task, turn_of(10)[:8])
        reading = await _tail(room, task, client, 4)
        ended = room.rows[task.id] = replace(room.end(task), checkpoint=StreamId(task.fence, 13))
        with pytest.raises(StreamCut):
            await reading
        with pytest.raises(CursorExpired):
            await room.read(ended, client)
        with pytest.raises(TaskExpired):
            await room.read(ended, StrictClient())


@pytest.mark.parametrize("kept", [10, 4])
async def test_an_end_is_made_from_the_row_only_after_a_whole_answer(redis_dsn: str, kept: int) -> None:
    async with reading_room(redis_dsn) as room:
        task = room.task()
        chunks = turn_of(5)[:-1]
        await room.write(task, chunks)
        ended = replace(room.end(task), checkpoint=StreamId(task.fence, len(chunks)))
        room.rows[task.id] = ended
        seen = await room.read(ended, StrictClient(), at_most=2)
        await room.redis.xtrim(key_of(task), maxlen=kept, approximate=False)
        if kept == len(chunks):
            assert (await room.read(ended, seen)).text == text_of(5)
        else:
            with pytest.raises(CursorExpired):
                await room.read(ended, seen)
