"""Tests of interruptions: the page recovers by itself, no text is lost or repeated, and no error is shown."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.browser.chat_page import FIELD, ChatPage, stream_text
from tests.browser.conftest import OpenPage
from tests.browser.driving import Browser
from tests.e2e.chat_api import converse, open_session
from tests.e2e.stack import Stack, new_user
from tests.servers.proxy import FaultProxy, Mode
from tests.speed import lasting, limit

WORDS = 90
ANSWER = f"/stream {WORDS} {round(lasting(50))}"
"""An answer that lasts 4.5 seconds, and longer on a slow machine, so that the interruption comes before its end."""
OFFLINE = 10.0
"""Seconds without a network."""

SILENCE = 25.0
"""Seconds without data after which a connection counts as lost. The server sends something every 10 s."""

IN_TIME = limit(40)
SOON = limit(8)
"""Less than SILENCE on the usual machine, so the page must have another reason to reconnect."""


async def _exact(page: ChatPage, n: int, within: float = IN_TIME) -> None:
    await page.until_idle(within=within)
    assert await page.answers() == [stream_text(n)]
    assert await page.tab.js("document.querySelectorAll('.problem').length") == 0
    await page.reload()
    await page.until_idle()
    assert await page.answers() == [stream_text(n)]


@asynccontextmanager
async def _reading(open_page: OpenPage, stack: Stack) -> AsyncIterator[tuple[ChatPage, FaultProxy]]:
    """Opens a page in mid-answer whose connections go through a fault proxy."""
    async with FaultProxy("127.0.0.1", stack.apis[0].port) as proxy:
        page = await open_page(base=f"http://127.0.0.1:{proxy.port}")
        await page.send(ANSWER)
        await page.until_text("9 10")
        yield page, proxy


async def test_an_answer_survives_killing_and_restarting_the_api(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page()
    await page.send(ANSWER)
    await page.until_text("9 10")
    (api,) = stack.apis
    api.send(signal.SIGKILL)
    await api.ended()
    await page.tab.until("document.querySelector('.reconnecting') !== null")
    await stack.start_api(port=api.port)
    await _exact(page, WORDS)


async def test_an_answer_survives_killing_the_executor(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page()
    await page.send(ANSWER)
    await page.until_text("9 10")
    (executor,) = stack.executors
    executor.send(signal.SIGKILL)
    await stack.start_executor()
    await _exact(page, WORDS)


async def test_an_answer_survives_ten_seconds_without_a_network(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send(ANSWER)
    await page.until_text("9 10")
    await page.tab.offline(True)
    await asyncio.sleep(OFFLINE)  # the tested outage lasts this long
    await page.tab.offline(False)
    await _exact(page, WORDS)


async def test_a_message_written_offline_is_sent_when_the_network_is_back(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    await page.tab.offline(True)
    await page.send("/stream 6")
    await page.tab.until("document.querySelector('.reconnecting') !== null")
    await page.tab.offline(False)
    await page.until_idle(2)
    assert [text for _, text in await page.messages()] == ["/stream 5", stream_text(5), "/stream 6", stream_text(6)]


async def test_an_answer_survives_a_laptop_that_sleeps_during_an_api_restart(
    open_page: OpenPage, browser: Browser, stack: Stack
) -> None:
    page = await open_page()
    await page.send(ANSWER)
    await page.until_text("9 10")
    (api,) = stack.apis
    with browser.asleep():
        api.send(signal.SIGKILL)
        await api.ended()
        await stack.start_api(port=api.port)
    await _exact(page, WORDS)


async def test_an_answer_survives_a_network_that_falls_silent(open_page: OpenPage, stack: Stack) -> None:
    async with _reading(open_page, stack) as (page, proxy):
        async with proxy.failing(Mode.SILENCE):
            await asyncio.sleep(1)  # lets data in flight arrive
        await _exact(page, WORDS, SILENCE + IN_TIME)


@pytest.mark.parametrize(
    ("event", "after"),
    [("online", 1), ("visibilitychange", 13)],  # the server itself is silent for up to 10 s
)
async def test_the_page_reconnects_when_the_network_or_the_reader_is_back(
    open_page: OpenPage, stack: Stack, event: str, after: int
) -> None:
    async with _reading(open_page, stack) as (page, proxy):
        async with proxy.failing(Mode.SILENCE):
            await asyncio.sleep(after)  # the tested silence lasts this long
        await page.tab.js(f"[window, document].forEach((one) => one.dispatchEvent(new Event('{event}')))")
        await page.tab.until("document.querySelector('.reconnecting') !== null", SOON)
        await _exact(page, WORDS, SILENCE + IN_TIME)


async def test_a_message_in_flight_during_a_reload_is_answered_once(open_page: OpenPage) -> None:
    page = await open_page()
    for n in range(1, 5):
        await page.send(f"/stream {n}")
        await page.reload()
        await page.until_idle(n)
        expected = [text for turn in range(1, n + 1) for text in (f"/stream {turn}", stream_text(turn))]
        assert [text for _, text in await page.messages()] == expected
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")


async def test_messages_that_reached_no_server_are_sent_by_the_next_page(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page()
    (api,) = stack.apis
    api.send(signal.SIGKILL)
    await api.ended()
    await page.send("/stream 5")
    await page.send("/stream 6")
    await page.tab.until("document.querySelector('.reconnecting') !== null")
    path = await page.path()
    await stack.start_api(port=api.port)
    await page.go("/library")
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await page.go(path)
    await page.until_idle(2)
    assert [text for _, text in await page.messages()] == ["/stream 5", stream_text(5), "/stream 6", stream_text(6)]


async def test_an_edit_in_flight_during_a_reload_is_answered_once(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    for n in ("50", "501"):
        await page.edit("article.user", n[-1])
        await page.reload()
        await page.until_text(stream_text(int(n))[-7:])
        await page.until_idle()
        assert [text for _, text in await page.messages()] == [f"/stream {n}", stream_text(int(n))]


@asynccontextmanager
async def _without_api(stack: Stack) -> AsyncIterator[None]:
    """Stops the API while the block lasts, and starts it again afterwards."""
    (api,) = stack.apis
    api.send(signal.SIGKILL)
    await api.ended()
    yield
    await stack.start_api(port=api.port)


async def test_an_edit_that_reached_no_server_is_sent_by_the_next_page(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    path = await page.path()
    for n, opened in (("50", path), ("500", "/library")):
        async with _without_api(stack):
            await page.edit("article.user", n[-1])
            await page.tab.until("document.querySelector('.reconnecting') !== null")
        await page.go(opened)
        await page.tab.until("sessionStorage['copilot.outbox'] === undefined")
        await page.go(path)
        await page.until_text(stream_text(int(n))[-7:])
        await page.until_idle()
        assert [text for _, text in await page.messages()] == [f"/stream {n}", stream_text(int(n))]
        await page.tab.shows(f"document.querySelector('{FIELD}').value", "")


async def test_an_edit_of_a_message_that_the_reloaded_page_has_not_loaded_yet_is_sent(
    open_page: OpenPage, stack: Stack
) -> None:
    user = new_user()
    async with stack.client(user) as client:
        session = await open_session(client)
        await converse(client, session, *[f"/stream {n}" for n in range(1, 56)])
    page = await open_page(user, f"/c/{session}")
    first = "article.user:first-child"
    await page.tab.until(
        "(document.querySelector('.scroll').scrollTop = 0,"
        f" document.querySelector('{first} .bubble')?.textContent === '/stream 1')"
    )
    async with _without_api(stack):
        await page.edit(first, "0")
        await page.tab.until("document.querySelector('.reconnecting') !== null")
    await page.reload()
    await page.until_text("8 9")
    await page.until_idle()
    assert await page.messages() == [("user", "/stream 10"), ("assistant", stream_text(10))]


@pytest.mark.parametrize("reloaded", [False, True])
@pytest.mark.parametrize("act", ["edit", "again"])
async def test_a_message_sent_after_an_edit_or_a_regeneration_is_answered_after_it(
    open_page: OpenPage, stack: Stack, act: str, reloaded: bool
) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    async with _without_api(stack):
        if act == "edit":
            await page.edit("article.user", "0")
        else:
            await page.tab.click('[aria-label="Answer again"]')
        await page.send("/stream 7")
        await page.send("/stream 8")
        await page.tab.until("document.querySelectorAll('.queued').length === 2")
    if reloaded:
        await page.reload()
    n = 50 if act == "edit" else 5
    await page.until_idle(3)
    expected = [f"/stream {n}", stream_text(n), "/stream 7", stream_text(7), "/stream 8", stream_text(8)]
    assert [text for _, text in await page.messages()] == expected
