"""What breaks under the page heals by itself: no word is lost or doubled, and no error box is shown."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.browser.chat_page import FIELD, ChatPage, spoken
from tests.browser.conftest import OpenPage
from tests.browser.driving import Browser
from tests.e2e.stack import Stack, new_user
from tests.e2e.talk import converse, open_session
from tests.servers.proxy import FaultProxy, Mode
from tests.speed import limit

AWAY = 10.0
"""Seconds without a network."""

SILENCE = 25.0
"""Seconds without a word after which a connection counts as lost; the server says something every 10 s."""

IN_TIME = limit(40)
SOON = limit(8)
"""Less than SILENCE on the usual machine: the page has noticed before."""


async def _exact(page: ChatPage, n: int, within: float = IN_TIME) -> None:
    await page.until_idle(within=within)
    assert await page.answers() == [spoken(n)]
    assert await page.tab.js("document.querySelectorAll('.problem').length") == 0
    await page.reload()
    await page.until_idle()
    assert await page.answers() == [spoken(n)]


@asynccontextmanager
async def _reading(open_page: OpenPage, home: Stack) -> AsyncIterator[tuple[ChatPage, FaultProxy]]:
    """A page in mid-answer, behind a network that can fail."""
    async with FaultProxy("127.0.0.1", home.apis[0].port) as proxy:
        page = await open_page(base=f"http://127.0.0.1:{proxy.port}")
        await page.say("/stream 300 15")
        await page.until_text("30 31")
        yield page, proxy


async def test_an_api_that_is_killed_and_restarted_in_mid_answer(open_page: OpenPage, home: Stack) -> None:
    page = await open_page()
    await page.say("/stream 300 15")
    await page.until_text("30 31")
    (api,) = home.apis
    api.send(signal.SIGKILL)
    await api.ended()
    await page.tab.until("document.querySelector('.reconnecting') !== null")
    await home.start_api(port=api.port)
    await _exact(page, 300)


async def test_an_executor_that_is_killed_in_mid_answer(open_page: OpenPage, home: Stack) -> None:
    page = await open_page()
    await page.say("/stream 300 15")
    await page.until_text("30 31")
    (executor,) = home.executors
    executor.send(signal.SIGKILL)
    await home.start_executor()
    await _exact(page, 300)


async def test_a_network_that_is_away_for_ten_seconds(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 400 10")
    await page.until_text("30 31")
    await page.tab.offline(True)
    await asyncio.sleep(AWAY)  # that is what is tested
    await page.tab.offline(False)
    await _exact(page, 400)


async def test_a_message_that_is_sent_without_a_network_goes_when_there_is_one(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 5")
    await page.until_idle()
    await page.tab.offline(True)
    await page.say("/stream 6")
    await page.tab.until("document.querySelector('.reconnecting') !== null")
    await page.tab.offline(False)
    await page.until_idle(2)
    assert [text for _, text in await page.said()] == ["/stream 5", spoken(5), "/stream 6", spoken(6)]


async def test_a_laptop_that_sleeps_while_the_api_is_restarted(
    open_page: OpenPage, browser: Browser, home: Stack
) -> None:
    page = await open_page()
    await page.say("/stream 300 15")
    await page.until_text("30 31")
    (api,) = home.apis
    with browser.asleep():
        api.send(signal.SIGKILL)
        await api.ended()
        await home.start_api(port=api.port)
    await _exact(page, 300)


async def test_a_network_that_falls_silent_and_lets_new_connections_through_later(
    open_page: OpenPage, home: Stack
) -> None:
    async with _reading(open_page, home) as (page, proxy):
        async with proxy.failing(Mode.SILENCE):
            await asyncio.sleep(1)  # what was on its way has come
        await _exact(page, 300, SILENCE + IN_TIME)


@pytest.mark.parametrize(
    ("event", "after"),
    [("online", 1), ("visibilitychange", 13)],  # the server itself is silent for up to 10 s
)
async def test_a_silence_ends_when_the_network_or_the_reader_is_back(
    open_page: OpenPage, home: Stack, event: str, after: int
) -> None:
    async with _reading(open_page, home) as (page, proxy):
        async with proxy.failing(Mode.SILENCE):
            await asyncio.sleep(after)  # that is what is tested
        await page.tab.js(f"[window, document].forEach((one) => one.dispatchEvent(new Event('{event}')))")
        await page.tab.until("document.querySelector('.reconnecting') !== null", SOON)
        await _exact(page, 300, SILENCE + IN_TIME)


async def test_a_message_on_its_way_when_the_page_is_reloaded_is_answered_once(open_page: OpenPage) -> None:
    page = await open_page()
    for n in range(1, 5):
        await page.say(f"/stream {n}")
        await page.reload()
        await page.until_idle(n)
        told = [text for turn in range(1, n + 1) for text in (f"/stream {turn}", spoken(turn))]
        assert [text for _, text in await page.said()] == told
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")


async def test_messages_that_met_no_server_are_sent_by_the_page_that_is_opened_next(
    open_page: OpenPage, home: Stack
) -> None:
    page = await open_page()
    (api,) = home.apis
    api.send(signal.SIGKILL)
    await api.ended()
    await page.say("/stream 5")
    await page.say("/stream 6")
    await page.tab.until("document.querySelector('.reconnecting') !== null")
    path = await page.path()
    await home.start_api(port=api.port)
    await page.go("/library")
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await page.go(path)
    await page.until_idle(2)
    assert [text for _, text in await page.said()] == ["/stream 5", spoken(5), "/stream 6", spoken(6)]


async def test_an_edit_on_its_way_when_the_page_is_reloaded_is_answered_once(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 5")
    await page.until_idle()
    for n in ("50", "501"):
        await page.edit("article.user", n[-1])
        await page.reload()
        await page.until_text(spoken(int(n))[-7:])
        await page.until_idle()
        assert [text for _, text in await page.said()] == [f"/stream {n}", spoken(int(n))]


@asynccontextmanager
async def _without_api(home: Stack) -> AsyncIterator[None]:
    """Whatever the page sends in this block meets no server; then there is one again."""
    (api,) = home.apis
    api.send(signal.SIGKILL)
    await api.ended()
    yield
    await home.start_api(port=api.port)


async def test_an_edit_that_met_no_server_is_sent_by_the_page_that_is_opened_next(
    open_page: OpenPage, home: Stack
) -> None:
    page = await open_page()
    await page.say("/stream 5")
    await page.until_idle()
    path = await page.path()
    for n, opened in (("50", path), ("500", "/library")):
        async with _without_api(home):
            await page.edit("article.user", n[-1])
            await page.tab.until("document.querySelector('.reconnecting') !== null")
        await page.go(opened)
        await page.tab.until("sessionStorage['copilot.outbox'] === undefined")
        await page.go(path)
        await page.until_text(spoken(int(n))[-7:])
        await page.until_idle()
        assert [text for _, text in await page.said()] == [f"/stream {n}", spoken(int(n))]
        assert await page.tab.js(f"document.querySelector('{FIELD}').value") == ""


async def test_an_edit_of_a_message_that_the_reloaded_page_has_not_read_yet_is_sent(
    open_page: OpenPage, home: Stack
) -> None:
    user = new_user()
    async with home.client(user) as client:
        session = await open_session(client)
        await converse(client, session, *[f"/stream {n}" for n in range(1, 56)])
    page = await open_page(user, f"/c/{session}")
    first = "article.user:first-child"
    await page.tab.until(
        "(document.querySelector('.scroll').scrollTop = 0,"
        f" document.querySelector('{first} .bubble')?.textContent === '/stream 1')"
    )
    async with _without_api(home):
        await page.edit(first, "0")
        await page.tab.until("document.querySelector('.reconnecting') !== null")
    await page.reload()
    await page.until_text("8 9")
    await page.until_idle()
    assert await page.said() == [("user", "/stream 10"), ("assistant", spoken(10))]


@pytest.mark.parametrize("reloaded", [False, True])
@pytest.mark.parametrize("act", ["edit", "again"])
async def test_a_message_behind_an_edit_or_another_answer_comes_after_it(
    open_page: OpenPage, home: Stack, act: str, reloaded: bool
) -> None:
    page = await open_page()
    await page.say("/stream 5")
    await page.until_idle()
    async with _without_api(home):
        if act == "edit":
            await page.edit("article.user", "0")
        else:
            await page.tab.click('[aria-label="Answer again"]')
        await page.say("/stream 7")
        await page.say("/stream 8")
        await page.tab.until("document.querySelectorAll('.queued').length === 2")
    if reloaded:
        await page.reload()
    n = 50 if act == "edit" else 5
    await page.until_idle(3)
    told = [f"/stream {n}", spoken(n), "/stream 7", spoken(7), "/stream 8", spoken(8)]
    assert [text for _, text in await page.said()] == told
