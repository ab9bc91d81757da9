"""How a connection to Redis is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from redis.exceptions import ConnectionError

from backend.redis import open_redis
from tests.servers.proxy import FaultProxy, Mode


async def _send_on_a_lost_connection(dsn: str) -> None:
    async with asyncio.timeout(10), FaultProxy.before(dsn) as proxy, open_redis(proxy.dsn, pool_size=2) as redis:
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
