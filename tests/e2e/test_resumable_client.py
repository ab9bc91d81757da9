"""Tests of the npm package of this project against the running service. Whatever breaks in mid-answer, a page shows the
exact text once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.e2e.chat_api import history_of, text_in, until_answered
from tests.e2e.resumable import Page, build_package, open_pages
from tests.e2e.sdk import VERSIONS
from tests.e2e.sse import PACE, counted, words_for
from tests.e2e.stack import Servers, Stack, bearer, new_session, new_user, open_stack
from tests.servers.proxy import FaultProxy, Mode
from tests.speed import lasting

CHUNKS = words_for(3)
ANSWER = f"/stream {CHUNKS} {PACE}"
QUICK = {"minDelayMs": 50, "maxDelayMs": 500, "idleMs": round(lasting(2500)), "attempts": 1000}
"""Options that make a page reconnect sooner than by default, which is after three missed heartbeats."""


@pytest.fixture(scope="module", autouse=True)
async def package() -> None:
    await build_package()


@pytest.fixture(scope="module")
async def pair(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with one API and two executors. A test that ends a process starts another in its place."""
    async with open_stack(servers, tmp_path_factory.mktemp("pair"), executors=2) as stack:
        yield stack


class Visitors:
    """A page of each AI SDK version, each with its own user."""

    def __init__(self, stack: Stack, *, base: str | None = None, accept: bool = False) -> None:
        self.stack = stack
        self.users = [(sdk, new_user(), new_session()) for sdk in VERSIONS]
        self.pages = [
            Page(sdk, base or stack.base, session, bearer(user), ANSWER, ["reset-step"] if accept and sdk > "7" else [])
            for sdk, user, session in self.users
        ]

    async def reading(self) -> None:
        """Waits until every answer has begun to stream."""
        async with asyncio.TaskGroup() as waiting:
            for _, user, session in self.users:
                waiting.create_task(self._read(user, session))

    async def _read(self, user: str, session: str) -> None:
        async with self.stack.client(user) as client:
            await until_answered(client, session)

    async def assert_stored_once(self) -> None:
        """Asserts that a page which is opened now shows the question and the exact answer once."""
        for _, user, session in self.users:
            async with self.stack.client(user) as client:
                question, answer = await history_of(client, session)
            assert text_in(question) == ANSWER
            assert text_in(answer) == counted(CHUNKS)


async def test_no_page_notices_that_the_api_was_killed_in_mid_answer(pair: Stack) -> None:
    visitors = Visitors(pair)
    api = pair.apis[0]
    opened = asyncio.create_task(open_pages(visitors.pages, **QUICK))
    await visitors.reading()
    api.send(signal.SIGKILL)
    await api.ended()
    await pair.start_api(port=api.port)
    for seen in await opened:
        seen.assert_no_error()
        assert seen.text == counted(CHUNKS)
        assert "reconnecting" in seen.states
        assert [request["method"] for request in seen.requests].count("POST") == 1
        assert seen.requests[-1]["cursor"]
    await visitors.assert_stored_once()


async def test_no_page_shows_an_error_when_an_executor_is_killed_in_mid_answer(pair: Stack) -> None:
    """Versions that accept `reset-step` show the exact text at once, the others when they are opened again."""
    visitors = Visitors(pair, accept=True)
    opened = asyncio.create_task(open_pages(visitors.pages, **QUICK))
    await visitors.reading()
    max(pair.executors, key=lambda executor: executor.log.read_text().count("turn runs")).send(signal.SIGKILL)
    for page, seen in zip(visitors.pages, await opened, strict=True):
        seen.assert_no_error()
        assert seen.text == counted(CHUNKS) if page.accept else seen.text.endswith(counted(CHUNKS))
    await visitors.assert_stored_once()
    await pair.start_executor()


async def test_no_page_loses_text_when_the_network_fails_for_five_seconds(pair: Stack) -> None:
    """Three networks fail at the same time, each with its own pages: one drops data, one resets, one refuses."""
    async with AsyncExitStack() as proxies:

        async def outage(mode: Mode) -> None:
            proxy = await proxies.enter_async_context(FaultProxy("127.0.0.1", pair.apis[0].port))
            visitors = Visitors(pair, base=f"http://127.0.0.1:{proxy.port}")
            opened = asyncio.create_task(open_pages(visitors.pages, **QUICK))
            await visitors.reading()
            async with proxy.failing(mode):
                await asyncio.sleep(lasting(5))  # the tested outage lasts this long
            for seen in await opened:
                seen.assert_no_error()
                assert seen.text == counted(CHUNKS), mode
                assert seen.states[0] == "reconnecting"
            await visitors.assert_stored_once()

        async with asyncio.TaskGroup() as outages:
            for mode in (Mode.BLACKHOLE, Mode.RESET, Mode.DOWN):
                outages.create_task(outage(mode))


async def test_a_message_whose_answer_was_lost_is_sent_again_and_answered_once(pair: Stack) -> None:
    async with FaultProxy("127.0.0.1", pair.apis[0].port) as proxy:
        await proxy.switch(Mode.LOSE_REPLIES)
        visitors = Visitors(pair, base=f"http://127.0.0.1:{proxy.port}")
        opened = asyncio.create_task(open_pages(visitors.pages, **QUICK))
        await visitors.reading()
        await proxy.switch(Mode.PASS)
        for seen in await opened:
            seen.assert_no_error()
            assert seen.text == counted(CHUNKS)
            assert [request["method"] for request in seen.requests].count("POST") >= 2
        await visitors.assert_stored_once()
