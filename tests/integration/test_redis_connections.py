"""Losses of a connection to Redis, also while its client is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from backend.redis import open_redis
from tests.integration.reader_rig import until
from tests.servers.proxy import FaultProxy, Mode
from tests.servers.redis import RedisNode
from tests.speed import limit


async def _send_on_a_lost_connection(dsn: str) -> None:
    async with asyncio.timeout(limit(20)), FaultProxy.before(dsn) as proxy, open_redis(proxy.dsn, pool_size=2) as redis:
        connection = await redis.connection_pool.get_connection()
        try:
            await proxy.switch(Mode.RESET)
            while True:  # until the reset has come
                await connection.send_command("PING")
                await asyncio.sleep(0.01)
        finally:
            await redis.connection_pool.release(connection)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_that_was_reset_a_moment_ago_is_a_server_that_is_away(
    redis_dsn: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """uvloop says RuntimeError when such a connection is written to; a turn failed of it."""
    with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(ConnectionError):
        runner.run(_send_on_a_lost_connection(redis_dsn))


async def _used_while_it_closes(dsn: str, rounds: int) -> None:
    """Sends a command while the client is being closed, as a cancelled job does in its last act."""
    async with open_redis(dsn, pool_size=2) as redis:
        late = asyncio.ensure_future(redis.ping())
        await _rounds(rounds)
    await asyncio.gather(late, return_exceptions=True)


async def _cancelled_while_it_closes(dsn: str, rounds: int) -> None:
    async def hold() -> None:
        async with open_redis(dsn, pool_size=2) as redis:
            await asyncio.gather(redis.ping(), redis.ping())
            held.set()
            await asyncio.Event().wait()

    held = asyncio.Event()
    holding = asyncio.create_task(hold())
    await held.wait()
    holding.cancel()
    await _rounds(rounds)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


async def _rounds(count: int) -> None:
    """Lets the loop go round that often: the places at which something else may come between."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("way", [_used_while_it_closes, _cancelled_while_it_closes])
async def test_a_client_that_is_closed_leaves_no_connection_whatever_happens_meanwhile(
    private_redis: RedisNode, way: Callable[[str, int], Awaitable[None]]
) -> None:
    async with asyncio.timeout(limit(60)), Redis.from_url(private_redis.dsn) as watch:

        async def alone() -> bool:
            clients: int = (await watch.info("clients"))["connected_clients"]
            return clients == 1

        for rounds in range(16):
            await way(private_redis.dsn, rounds)
            await until(alone)
