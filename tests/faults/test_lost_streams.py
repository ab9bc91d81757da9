"""I14: no gap is silent. When Redis loses a stream or a part of it, readers notice, and get the whole answer in the
end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
from redis.asyncio import Redis

from backend.chat.keys import stream_key
from backend.ids import SessionId, TaskId
from tests.e2e.chat_api import asked, history_of, open_session, text_in
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.faults.figures import record
from tests.faults.scale import scale
from tests.faults.tabs import Tab, without_torn
from tests.servers.redis import RedisNode, redis_client
from tests.speed import limit

ROUNDS = scale(1, 20)
STEPS = [" ".join(f"{letter}{n}" for n in range(50)) for letter in "abc"]
QUESTION = '\n/tool add_understanding {"user_name":"Ada"}\n/then\n'.join(f"/say {step}" for step in STEPS)
CHUNKS = 150
LIMIT = limit(60)

Hurt = Callable[[Redis, str, Random], Awaitable[object]]


async def trimmed(redis: Redis, key: str, chance: Random) -> None:
    await redis.xtrim(key, maxlen=chance.randrange(4), approximate=False)


async def deleted(redis: Redis, key: str, _: Random) -> None:
    await redis.delete(key)


async def expired(redis: Redis, key: str, _: Random) -> None:
    await redis.expire(key, 0)


async def recreated(redis: Redis, key: str, chance: Random) -> None:
    """Leaves only the beginning of the stream, as after a failover to a replica that lagged behind."""
    entries = await redis.xrange(key)
    pipeline = redis.pipeline(transaction=True).delete(key)
    for id, fields in entries[: chance.randrange(1, max(2, len(entries)))]:
        pipeline.xadd(key, fields, id=id)
    await pipeline.execute()


async def flushed(redis: Redis, _: str, __: Random) -> None:
    await redis.flushall()


@pytest.fixture
async def stack_with_own_redis(
    postgres_dsn: str, private_redis: RedisNode, rabbitmq_dsn: str, tmp_path: Path
) -> AsyncIterator[Stack]:
    servers = Servers(postgres_dsn, private_redis.dsn, rabbitmq_dsn)
    async with open_stack(servers, tmp_path, apis=2, executors=2, MAX_OPEN_STREAMS="100", MAX_CRASHES="20") as stack:
        yield stack


@pytest.mark.timeout(scale(120, 3600))
async def test_no_reader_misses_chunks_silently_when_redis_loses_a_stream(
    stack_with_own_redis: Stack, chance: Random
) -> None:
    """One tab reads while Redis loses the stream, one has read a part of it before, and one comes afterwards. Each
    exists with and without support for resets."""
    fates: Counter[str] = Counter()
    async with redis_client(stack_with_own_redis.servers.redis) as redis:
        for _ in range(ROUNDS):
            of_one_key = (trimmed, deleted, expired, recreated)
            chances = [Random(chance.random()) for _ in of_one_key]  # one each, because the cases run at the same time
            await asyncio.gather(
                *(
                    _case(stack_with_own_redis, redis, hurt, one, fates)
                    for hurt, one in zip(of_one_key, chances, strict=True)
                )
            )
            await _case(stack_with_own_redis, redis, flushed, chance, fates)
    assert fates["broken off"]
    assert fates["refused with 410"]
    counts = ", ".join(f"{count} {fate}" for fate, count in fates.items())
    record("I14", f"{5 * ROUNDS} streams trimmed, deleted, expired, recreated, flushed; of their tabs {counts}; no gap")


async def _case(stack: Stack, redis: Redis, hurt: Hurt, chance: Random, fates: Counter[str]) -> None:
    # Some cases are after the end. One kind comes early, so that it breaks off a reader on a slow machine, too.
    at = chance.randrange(5, 40 if hurt is deleted else CHUNKS + 40)
    bases = [api.url for api in stack.apis]
    async with stack.client(new_user()) as http, asyncio.timeout(LIMIT):
        session = await open_session(http)
        async with asked(http, session, QUESTION) as stream:
            task = stream.task_id
        tails, interrupted, late = ([Tab(http, bases, task, resets=resets) for resets in (True, False)] for _ in "abc")
        tailing = [asyncio.create_task(tab.follow(api)) for api, tab in enumerate(tails)]
        for tab in interrupted:
            assert await tab.connect(cut=chance.randrange(200, 10_000)) == 200
        while len(tails[0].shown.chunks) < at and not tails[0].ended:
            await asyncio.sleep(0.02)  # between two checks of a bounded wait
        await hurt(redis, stream_key(SessionId(session), TaskId(task)), chance)
        coming = [asyncio.create_task(tab.follow(1)) for tab in [*interrupted, *late] if not tab.shown.done]
        await asyncio.gather(*tailing, *coming)
        for tab in [*tails, *interrupted, *late]:
            _judge(tab, fates)
        assert await tails[0].task_has_ended()
        assert text_in((await history_of(http, session))[-1]) == "".join(STEPS)


def _judge(tab: Tab, fates: Counter[str]) -> None:
    fates["broken off"] += tab.broken
    fates["refused with 410"] += tab.refused
    if not tab.ended:
        fates["sent to the conversation"] += 1
        return
    fates["served whole"] += 1
    assert tab.ending == "completed"
    assert without_torn(tab.shown.steps, STEPS)[0] == STEPS
