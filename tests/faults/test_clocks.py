"""I31: no duration depends on a process's own clock, and an executor whose clock is far off takes no turns."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.e2e.chat_api import asked, open_session
from tests.e2e.sse import text_of
from tests.e2e.stack import Child, Servers, Stack, new_user, open_stack
from tests.faults.figures import record
from tests.plain_http import http_client
from tests.servers.faketime_install import HINT, find_or_install
from tests.speed import limit

AHEAD, BEHIND = "+125m", "-125m"
OTHERS = {"postgres": True, "redis": True, "hub": True, "turns": True}


@pytest.fixture
async def stack(postgres_dsn: str, redis_dsn: str, tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(Servers(postgres_dsn, redis_dsn), tmp_path, apis=1, executors=0, TURN_TIMEOUT="300") as stack:
        yield stack


@pytest.fixture
def faked(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a process whose wall clock `set_clock` changes. Its other clocks are right."""
    library = find_or_install()
    if library is None:
        pytest.skip(HINT)
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(faked: Mapping[str, str], offset: str) -> None:
    """Moves the wall clock of the processes with this environment, at once."""
    file = Path(faked["FAKETIME_TIMESTAMP_FILE"])
    file.with_suffix(".new").write_text(offset)
    os.replace(file.with_suffix(".new"), file)


async def until_clock(child: Child, *, right: bool) -> None:
    """Waits until the readiness of the process reports its clock as right, or as wrong, and all other checks pass."""
    checks: Mapping[str, bool] = {}
    async with http_client(timeout=limit(20)) as http, asyncio.timeout(limit(40)):
        while checks != {**OTHERS, "clock": right}:
            await asyncio.sleep(0.1)  # between two checks of a bounded wait
            try:
                answer = await http.get(f"{child.url}/api/chat/health/ready")
            except httpx.TransportError:  # it does not listen yet
                continue
            checks = {name: passed for name, passed in answer.json()["checks"].items() if name != "completions"}
            assert answer.status_code == (200 if all(checks.values()) else 503)


async def ended_turns(child: Child) -> float:
    async with http_client(timeout=limit(20)) as http:
        lines = (await http.get(f"{child.url}/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("turns_ended_total"))


async def until_turns_ended(child: Child, number: int) -> None:
    """Waits until the executor has counted so many ended turns, each of them after the end of its stream."""
    async with asyncio.timeout(limit(20)):
        while await ended_turns(child) != number:
            await asyncio.sleep(0.05)  # between two looks of a bounded wait


@pytest.mark.parametrize("offset", [AHEAD, BEHIND])
async def test_an_executor_with_a_wrong_clock_takes_no_turns(
    stack: Stack, faked: Mapping[str, str], offset: str
) -> None:
    set_clock(faked, offset)
    wrong = await stack.spawn("executor", **faked)
    await until_clock(wrong, right=False)
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, "/say one two three") as stream:
            right = await stack.start_executor()
            assert text_of(await stream.rest()) == "one two three"
    await until_turns_ended(right, 1)
    assert await ended_turns(wrong) == 0
    assert "the clock is wrong" in wrong.log.read_text()
    record("I31", f"an executor {offset} off: not ready, 0 turns taken; the other one answered")


async def test_no_duration_depends_on_the_clock_of_an_executor(stack: Stack, faked: Mapping[str, str]) -> None:
    set_clock(faked, AHEAD)
    await stack.start_executor(**faked, MAX_CLOCK_SKEW="0")
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, "/say one two three") as stream:
            assert text_of(await stream.rest()) == "one two three"


async def test_an_executor_whose_clock_jumps_in_mid_turn_ends_it_and_takes_others_when_it_is_right(
    stack: Stack, faked: Mapping[str, str]
) -> None:
    set_clock(faked, "+0")
    executor = await stack.start_executor(**faked)
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, "/count a 40 50") as stream:
            await stream.until(5)
            set_clock(faked, AHEAD)
            await stream.rest()
            assert stream.done
        await until_clock(executor, right=False)
        async with asked(client, session, "/say one two three") as stream:
            set_clock(faked, "+0")
            assert text_of(await stream.rest()) == "one two three"
    await until_turns_ended(executor, 2)


async def test_an_api_with_a_wrong_clock_is_not_ready(stack: Stack, faked: Mapping[str, str]) -> None:
    set_clock(faked, BEHIND)
    api = await stack.spawn("api", **faked)
    await until_clock(api, right=False)
    set_clock(faked, "+0")
    await until_clock(api, right=True)
