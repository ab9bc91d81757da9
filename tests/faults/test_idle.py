"""The load of an idle stack on its stores. The executor's heartbeats, two a second, are its clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from backend.chat.keys import HEARTBEAT_EVERY
from tests.e2e.chat_api import converse, open_session
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.faults.owners import postgres_connection
from tests.faults.scale import scale
from tests.servers.redis import RedisNode
from tests.speed import limit

BEATS = scale(16, 120)
CALM_AFTER = 48
"""Beats until the claims are checked seldom, and PostgreSQL has counted all that came before: ten seconds each."""
REDIS_COMMANDS_A_SECOND = 11.0
"""A beat, the reads of the queue and of the completions, and the checks for dead executors, are needed all the time."""
_ASKED = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture
async def alone(postgres_dsn: str, private_redis: RedisNode, tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(Servers(postgres_dsn, private_redis.dsn), tmp_path) as stack:
        yield stack


@pytest.mark.timeout(scale(120, 600))
async def test_an_idle_stack_asks_its_stores_seldom(alone: Stack, private_redis: RedisNode) -> None:
    async with alone.client(new_user()) as http:
        await converse(http, await open_session(http), "/say Hello")
    async with Redis.from_url(private_redis.dsn) as redis, postgres_connection(alone.servers.postgres) as c:

        async def commands() -> dict[str, int]:
            stats = await redis.info("commandstats")
            return {name: stat["calls"] for name, stat in stats.items() if name != "cmdstat_info"}

        async def after_beats(count: int) -> dict[str, int]:
            wanted = (await commands())["cmdstat_set"] + count
            async with asyncio.timeout(limit(2 * count * HEARTBEAT_EVERY)):
                while (now := await commands())["cmdstat_set"] < wanted:
                    await asyncio.sleep(0.05)  # between two looks of a bounded wait
            return now

        before = await after_beats(CALM_AFTER)
        began, asked = time.monotonic(), await c.fetchval(_ASKED)
        after = await after_beats(BEATS)
        seconds = time.monotonic() - began
        sent = sum(after.values()) - sum(before.values())
        looks = 1
        asked = await c.fetchval(_ASKED) - asked - looks
    print(f"in {seconds:.1f} s: {sent} Redis commands, {asked} transactions")
    assert sent < REDIS_COMMANDS_A_SECOND * seconds
    assert asked <= seconds
