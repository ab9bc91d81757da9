"""The client of a Redis Cluster, and what the product does over one: queues, completions, streams, notifications."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from backend.chat import keys
from backend.chat.keys import COMPLETIONS, TURNS, executor_key, stream_key
from backend.chat.protocol.chunks import Data
from backend.chat.queue.completions import GROUP, Completions, dead_completions
from backend.chat.queue.redis import open_redis_turns
from backend.chat.queue.redis_consumer import BODY, QueueKeys
from backend.chat.streams.hub import Hub
from backend.chat.streams.streams import Streams
from backend.chat.streams.writer import Flusher
from backend.errors import ConfigError
from backend.ids import BEGINNING, ExecutorId, SessionId, StreamId, TaskId
from backend.redis import open_redis, open_waiting_redis, require_right_mode
from backend.redis_cluster import beside, by_slot, info_of_servers, shard_of
from tests.integration.reader_rig import until
from tests.integration.turn_queues import new_turn, soon
from tests.servers.redis import redis_node
from tests.servers.redis_cluster import RedisCluster, redis_cluster
from tests.speed import limit


@pytest.fixture(scope="module")
async def three() -> AsyncIterator[RedisCluster]:
    """Three masters without replicas."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        async with redis_cluster(Path(folder), replicas=False) as cluster:
            yield cluster


@pytest.fixture
async def redis(three: RedisCluster) -> AsyncIterator[Redis]:
    async with open_redis(three.dsn, pool_size=4) as redis, asyncio.timeout(limit(60)):
        yield redis


def new_stream() -> str:
    return stream_key(SessionId(uuid.uuid4().hex), TaskId(uuid.uuid4().hex))


async def _nobody_is_dead(_: object) -> set[ExecutorId]:
    return set()


async def _no_tasks(_: object) -> list[object]:  # type: ignore[misc]
    return []


async def test_a_pipeline_reaches_every_master_and_keeps_its_order(redis: Redis) -> None:
    names = [new_stream() for _ in range(50)]
    assert len({shard_of(redis, name) for name in names}) > 1  # before the map is known, no master holds up all
    for number, name in enumerate(names):
        await redis.set(name, number, ex=60)
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.get(name)
    pipeline.time()
    *values, now = await pipeline.execute()
    assert values == [b"%d" % number for number in range(50)]
    assert len(now) == 2
    assert len({shard_of(redis, name) for name in names}) == 3
    assert len(await info_of_servers(redis, "memory")) == 3
    with pytest.raises(ValueError, match="transactions"):
        redis.pipeline()


async def test_commands_follow_a_slot_that_moves(redis: Redis, three: RedisCluster) -> None:
    """While the slot is on its way the nodes answer ASK, then MOVED, since this client knows only the old master."""
    old, new = new_stream(), None
    await redis.set(old, "old", ex=60)
    async with three.slot_on_its_way(old):
        new = f"{old}:new"
        await redis.set(new, "new", ex=60)
        pipeline = redis.pipeline(transaction=False)
        for name in (old, new, new_stream()):
            pipeline.get(name)
        assert await pipeline.execute() == [b"old", b"new", None]
    assert [await redis.get(old), await redis.get(new)] == [b"old", b"new"]


async def test_streams_on_all_masters_are_written_read_and_announced(three: RedisCluster) -> None:
    async with open_redis(three.dsn, pool_size=4) as redis, Flusher(redis, ttl=60) as flusher:
        streams = Streams(redis, 60)
        names = [new_stream() for _ in range(9)]
        async with Hub(three.dsn, streams, _no_tasks) as hub, asyncio.timeout(limit(60)):
            assert hub.healthy
            with hub.follow(names[0], TaskId("t")) as ring:

                async def is_known(last: int) -> bool:
                    return ring.confirmed and ring.top == StreamId(1001, last)

                async def confirmed() -> bool:
                    return ring.confirmed

                await until(confirmed)
                writers = [flusher.writer(name, 1001, create=True) for name in names]
                for number in range(3):
                    if number == 1:
                        await three.move_slot(names[0])
                        await until(confirmed)
                    for writer in writers:
                        await writer.append(Data("n", number))
                        await writer.drain()
                    await until(lambda number=number: is_known(number + 1))  # type: ignore[misc]
        for name in names:
            assert [entry.id.seq for entry in await streams.page(name, BEGINNING)] == [1, 2, 3]
        found = await streams.peek({name: StreamId(1001, 1) for name in names})
        assert found == {name: [StreamId(1001, 2), StreamId(1001, 3)] for name in names}


async def test_keys_that_are_used_together_share_a_slot(redis: Redis) -> None:
    """The names that others write, too, are the same as on one server."""
    used = {
        TURNS: QueueKeys.of(redis).dead,
        COMPLETIONS: dead_completions(redis),
        keys.BORN: beside(redis, executor_key(ExecutorId("e")), keys.BORN),
    }
    for anchor, other in used.items():
        assert key_slot(anchor.encode()) == key_slot(other.encode())
        assert other.startswith("chat:")
    assert QueueKeys.of(redis).turns == TURNS
    assert [sorted(group) for group in by_slot(redis, used)] == [[anchor] for anchor in used]


async def test_what_cannot_be_used_stops_no_stream_of_a_cluster_with_one_node(short_path: Path) -> None:
    """Such a node looks as a serverless offer does: it never redirects, and refuses commands over two slots."""
    async with (
        redis_cluster(short_path, masters=1, replicas=False) as one,
        open_redis(one.dsn, pool_size=4) as redis,
        open_waiting_redis(one.dsn, longest_wait=1) as waiting,
        asyncio.timeout(limit(60)),
    ):
        await redis.xadd(TURNS, {BODY: "garbage"})
        turn = new_turn()
        async with (
            open_redis_turns(one.dsn, redis, ExecutorId("me"), _nobody_is_dead) as queue,
            queue.consume(2) as deliveries,
        ):
            await queue.publish(turn)
            delivery = await soon(anext(deliveries))
            assert delivery.turn == turn
            await delivery.ack()
        assert [await redis.xlen(name) for name in (TURNS, QueueKeys.of(redis).dead)] == [0, 1]

        completions = Completions(redis, waiting, "me", stale_after=60)
        await completions.make_group()
        await redis.xadd(COMPLETIONS, {"data": "garbage"})
        (refused,) = await completions.new()
        for _ in range(2):  # as if the answer of the first was lost
            await completions.bury(refused, "not JSON")
        await redis.xadd(COMPLETIONS, {"data": "{}"})
        assert [entry.data for entry in await completions.new()] == [b"{}"]
        assert (await redis.xpending(COMPLETIONS, GROUP))["pending"] == 1
        ((_, letter),) = await redis.xrange(dead_completions(redis))
        assert letter == {b"data": b"garbage", b"reason": b"not JSON", b"id": refused.id}


async def test_a_url_whose_mode_is_wrong_is_refused(three: RedisCluster, short_path: Path) -> None:
    async with (
        redis_node(short_path) as single,
        open_redis(single.dsn.replace("://", "+cluster://"), pool_size=2) as redis,
    ):
        with pytest.raises(ConfigError, match=r"^REDIS_URL: [^\n]*no node of a cluster[^\n]*$"):
            await require_right_mode(redis)
    async with open_redis(f"redis://127.0.0.1:{three.nodes[0].port}", pool_size=2) as redis:
        with pytest.raises(ConfigError, match=r"^REDIS_URL: [^\n]*redis\+cluster://[^\n]*$"):
            await require_right_mode(redis)
    async with open_redis(three.dsn, pool_size=2) as redis:
        await require_right_mode(redis)
