"""Redis fails over while the connections to its old master stay open, as behind a name or a proxy that is not told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.e2e.stack import Servers, Stack, open_stack
from tests.faults.moving_masters import BACK_WITHIN, check_turns_over
from tests.faults.scale import FULL
from tests.servers.proxy import FaultProxy
from tests.servers.redis import RedisNode, fail_over, redis_pair


@pytest.fixture
async def pair(short_path: Path) -> AsyncIterator[tuple[RedisNode, RedisNode]]:
    async with redis_pair(short_path) as nodes:
        yield nodes


@pytest.fixture
async def address(pair: tuple[RedisNode, RedisNode]) -> AsyncIterator[FaultProxy]:
    """The address of the master, as the product knows it."""
    async with FaultProxy.before(pair[0].dsn) as proxy:
        yield proxy


@pytest.fixture(params=["redis", "rabbitmq"] if FULL else ["redis"])
def servers_that_move(request: pytest.FixtureRequest, postgres_dsn: str, address: FaultProxy) -> Servers:
    rabbitmq = request.getfixturevalue("rabbitmq_dsn") if request.param == "rabbitmq" else None
    return Servers(postgres_dsn, address.dsn, rabbitmq)


@pytest.fixture
async def moved(servers_that_move: Servers, tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(servers_that_move, tmp_path, executors=2) as stack:
        yield stack


async def test_a_failover_that_leaves_connections_open_ends_no_turn_and_needs_no_restart(
    moved: Stack, pair: tuple[RedisNode, RedisNode], address: FaultProxy
) -> None:
    master, replica = pair

    async def move(_: str) -> None:
        await fail_over(master)
        address.lead_to(replica.dsn)

    await check_turns_over(moved, move)
    await _nobody_is_left_at(master)


async def _nobody_is_left_at(old: RedisNode) -> None:
    """Waits until the old master has no client but its own master and this one."""
    async with Redis.from_url(old.dsn, client_name="watch") as watch, asyncio.timeout(BACK_WITHIN):
        while len(await watch.client_list(_type="normal")) > 1 or await watch.client_list(_type="pubsub"):
            await asyncio.sleep(0.05)  # between two looks of a bounded wait
