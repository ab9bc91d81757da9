"""I28: peers that abuse the API leave others served."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests import ROOT
from tests.e2e.chat_api import asked, open_session
from tests.e2e.sse import counted, text_of
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.faults.figures import record
from tests.faults.gauges import open_files, open_streams, rss
from tests.faults.scale import FULL, scale
from tests.speed import lasting, limit

SLOW, LARGE, READERS, HEALTHY = scale(40, 1_000), scale(6, 200), scale(20, 500), scale(4, 50)
LASTS = scale(4.0, 60.0)
MEMORY_MB = 512
HEALTH_P99_S, RECOVERED_S = 0.2, 10.0
SPARE_FILES = 34
"""Connections to Postgres and Redis that pools of the usual size may have more than before. They stay."""


class Health:
    """Asks for the health of the API again and again, and keeps the times of the answers in seconds."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def ask(self, http: httpx.AsyncClient) -> None:
        while True:
            began = time.monotonic()
            answer = await http.get("/health")
            assert answer.status_code == 200
            self.times.append(time.monotonic() - began)
            await asyncio.sleep(0.05)

    @property
    def p99(self) -> float:
        return sorted(self.times)[int(len(self.times) * 0.99)]


@dataclass
class Talk:
    """What healthy users got: the seconds of each exact answer, and the refusals (503) by their codes."""

    times: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    async def go_on(self, stack: Stack, over: asyncio.Event) -> None:
        """Is a healthy user: has one message after the other answered exactly, until `over` is set."""
        async with stack.client(new_user()) as http:
            session = await open_session(http)
            while not over.is_set():
                began, key = time.monotonic(), uuid.uuid4().hex
                try:
                    async with asyncio.timeout(limit(60)):
                        while not await self._answered(http, session, key):
                            await asyncio.sleep(0.2)  # between two tries of a refused message
                except TimeoutError:
                    raise AssertionError(f"a message was not answered; refused: {self.refused}") from None
                self.times.append(time.monotonic() - began)

    async def _answered(self, http: httpx.AsyncClient, session: str, key: str) -> bool:
        """Sends the message, perhaps once more. Returns False if it was refused. Anything else but the exact answer
        fails the test, with what came."""
        async with asked(http, session, "/stream 20 20", message_id=key) as stream:
            if stream.status == 200:
                events = await stream.rest()
                assert (stream.done, text_of(events)) == (True, counted(20)), [event.data for event in events]
                return True
            body = (await stream.response.aread()).decode()
        assert stream.status == 503, (stream.status, body)
        self.refused[json.loads(body)["code"]] += 1
        return False


@asynccontextmanager
async def abuse(port: int, session: str) -> AsyncIterator[dict[str, int]]:
    """Runs the abusers. Afterwards the yielded dict has what they saw."""
    seen: dict[str, int] = {}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.abusers", str(port), session, str(SLOW), str(LARGE), str(READERS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    try:
        yield seen
        output, _ = await asyncio.wait_for(process.communicate(b""), limit(20))  # which closes its stdin
        seen |= json.loads(output)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_left(stack: Stack, http: httpx.AsyncClient, files: int) -> float:
    """Waits until nothing of the abusers is left in the API. Returns the seconds."""
    began, left = time.monotonic(), ""
    try:
        async with asyncio.timeout(limit(RECOVERED_S)):
            while (streams := await open_streams(http)) or open_files(stack.apis[0]) > files + SPARE_FILES:
                left = f"{streams} streams, {open_files(stack.apis[0])} files ({files} before)"
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"left in the API: {left}") from None
    return time.monotonic() - began


@pytest.mark.timeout(scale(240, 1_200))
async def test_abuse_by_some_leaves_others_served(postgres_dsn: str, redis_dsn: str, tmp_path: Path) -> None:
    limits = {"LOG_LEVEL": "WARNING", "MAX_RUNNING_TURNS": "100"}
    async with (
        open_stack(Servers(postgres_dsn, redis_dsn), tmp_path, **limits) as stack,
        stack.client() as http,
    ):
        session, over, health, talk = await open_session(http), asyncio.Event(), Health(), Talk()
        files, before = open_files(stack.apis[0]), sum(map(rss, stack.children))
        async with asyncio.TaskGroup() as group:
            probe = group.create_task(health.ask(http))
            for _ in range(HEALTHY):
                group.create_task(talk.go_on(stack, over))
            async with asyncio.timeout(limit(30)):
                while len(talk.times) < HEALTHY:  # so many answers before the abuse begins
                    await asyncio.sleep(0.1)
            async with abuse(stack.apis[0].port, session) as seen:
                memory = await _watch(stack, lasting(LASTS))
            over.set()
            probe.cancel()
        recovered = await until_left(stack, http, files)
        assert [child for child in stack.children if not child.running] == []
    record(
        "I28",
        f"{LASTS:.0f} s of {SLOW} slow connections, {LARGE} large bodies and {READERS} readers that reconnect "
        f"({seen}): {len(talk.times)} answers of {HEALTHY} users exact (slowest {max(talk.times):.1f} s; refused "
        f"and sent again: {dict(talk.refused)}), health p99 "
        f"{health.p99 * 1000:.0f} ms of {len(health.times)}, memory {memory:.0f} MB (before: {before:.0f}), "
        f"recovered in {recovered:.1f} s",
    )
    if FULL:  # in `make test`, the other tests delay health more than the abuse does
        assert health.p99 < limit(HEALTH_P99_S)
    assert memory < MEMORY_MB
    assert talk.times


async def _watch(stack: Stack, seconds: float) -> float:
    """Returns the most memory that API and executor have together, in MB."""
    most, until = 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        most = max(most, sum(map(rss, stack.children)))
        await asyncio.sleep(0.2)
    return most
