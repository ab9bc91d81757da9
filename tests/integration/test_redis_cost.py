"""The cost of a turn in Redis does not grow with the number of tasks: every look-up is by key."""

from __future__ import annotations

from redis.asyncio import Redis

from backend.config import load_settings
from backend.ids import new_session_id
from backend.resources import open_resources
from tests.integration.test_executor import ApiSide, working
from tests.servers.redis import RedisNode

# per-process jobs: they run by the clock, not by the turn
BY_THE_CLOCK = {
    "info",
    "client|setinfo",
    "client",
    "hello",
    "select",
    "ping",
    "time",
    "exists",
    "subscribe",
    "unsubscribe",
}
SEARCHES = {"keys", "scan", "sscan", "hscan", "zscan", "smembers", "hgetall", "lrange", "zrange", "sort", "randomkey"}


async def calls_of(redis: Redis) -> dict[str, int]:
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_").lower(): of["calls"] for name, of in stats.items()}


async def test_the_commands_of_a_turn_are_few_and_the_same_after_many_turns(
    postgres_dsn: str, private_redis: RedisNode
) -> None:
    settings = load_settings(files=(), database_url=postgres_dsn, redis_url=private_redis.dsn, queue="redis")
    async with open_resources(settings) as resources, working(settings):
        api_side = ApiSide(resources, settings)

        async def cost_of_turns(n: int) -> dict[str, int]:
            before = await calls_of(resources.redis)
            for _ in range(n):
                await api_side.read(await api_side.ask("/stream 20", new_session_id()))
            after = await calls_of(resources.redis)
            return {name: calls - before.get(name, 0) for name, calls in after.items()}

        await cost_of_turns(1)
        early = await cost_of_turns(5)
        await cost_of_turns(60)
        late = await cost_of_turns(5)
    assert not SEARCHES & {name for name, calls in late.items() if calls}
    per_turn = {name: calls / 5 for name, calls in late.items() if name not in BY_THE_CLOCK}
    assert sum(per_turn.values()) < 100
    for name in ("xrange", "xadd", "evalsha", "xreadgroup"):
        assert late.get(name, 0) <= 2 * early.get(name, 0) + 10, name
