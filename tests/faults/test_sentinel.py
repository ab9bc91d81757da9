"""Sentinels make another Redis the master: by a command, because the master died, and because it is frozen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.stack import Servers, Stack, open_stack
from tests.faults.moving_masters import check_turns_over
from tests.faults.scale import FULL
from tests.servers.redis import RedisNode, redis_pair
from tests.servers.sentinels import Sentinels, three_sentinels

EVENTS = ("command", "death", "freeze") if FULL else ("death",)


@dataclass
class Watched:
    """A master, its replica, the Sentinels that watch them, and a stack that knows the Sentinels only."""

    master: RedisNode
    replica: RedisNode
    sentinels: Sentinels
    stack: Stack


@pytest.fixture
async def watched(short_path: Path, postgres_dsn: str, tmp_path: Path) -> AsyncIterator[Watched]:
    async with (
        redis_pair(short_path) as (master, replica),
        three_sentinels(short_path, master) as sentinels,
        open_stack(Servers(postgres_dsn, sentinels.dsn), tmp_path, executors=2) as stack,
    ):
        yield Watched(master, replica, sentinels, stack)


async def _end_mastership(watched: Watched, how: str, _: str) -> None:
    match how:
        case "command":
            await watched.sentinels.fail_over()
        case "death":
            await watched.master.kill()
        case "freeze":
            watched.master.pause()
    await watched.sentinels.until_master(watched.replica)


@pytest.mark.parametrize("how", EVENTS)
async def test_turns_go_on_at_the_master_that_sentinels_name(watched: Watched, how: str) -> None:
    await watched.sentinels.stop_first()
    await check_turns_over(watched.stack, partial(_end_mastership, watched, how))
