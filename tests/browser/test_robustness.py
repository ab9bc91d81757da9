"""Odd texts, odd addresses and odd moments: the page goes on, and nothing falls out of a conversation."""

from __future__ import annotations

import asyncio
import signal

from tests.browser.chat_page import FIELD, STOP, spoken
from tests.browser.conftest import OpenPage
from tests.browser.crowd import crowded
from tests.browser.driving import LIMIT
from tests.e2e.stack import Stack, new_user
from tests.e2e.talk import converse, open_session


async def test_text_that_no_parser_takes_is_shown_as_it_is(open_page: OpenPage) -> None:
    page = await open_page()
    deep = ">" * 3500
    await page.say(f"/say {deep}")
    await page.until_idle()
    assert await page.answers() == [deep]


async def test_long_code_keeps_its_block(open_page: OpenPage, home: Stack) -> None:
    user, code = new_user(), f"{'x' * 199}\n" * 120
    async with home.client(user) as client:
        session = await open_session(client)
        await converse(client, session, "/say ```python\r" + code.replace("\n", "\r") + "```")
    page = await open_page(user, f"/c/{session}")
    await page.until_idle()
    assert await page.tab.js("document.querySelector('figure.code code').textContent") == code.rstrip("\n")
    assert await page.tab.js("document.querySelector('figure.code [aria-label=\"Copy code\"]') !== null")


async def test_addresses_of_nothing_say_so(open_page: OpenPage) -> None:
    page = await open_page()
    await page.go("/c/0123456789abcdef")
    await page.tab.until("document.querySelector('h1')?.innerText === 'This conversation is not here'")
    await page.tab.click("main .scroll a")
    await page.tab.until("document.querySelector('.welcome') !== null")
    await page.go("/build?flowID=100%25")
    await page.tab.until("document.querySelector('main .problem') !== null")


async def test_a_conversation_that_grew_by_more_than_a_page_is_whole(open_page: OpenPage, home: Stack) -> None:
    user, before, after = new_user(), 10, 75
    async with home.client(user) as client:
        session = await open_session(client)
        said = [f"/stream {n}" for n in range(1, after + 1)]
        await converse(client, session, *said[:before])
        page = await open_page(user, f"/c/{session}")
        await page.until_idle(before)
        await page.tab.offline(True)
        await converse(client, session, *said[before:])
        await page.tab.offline(False)
        await page.until_text(f"{after - 2} {after - 1}")
    assert [text for text in await page.read_upwards(said[0]) if text.startswith("/stream")] == said


async def test_an_edit_that_is_refused_comes_back_into_the_field(open_page: OpenPage, home: Stack) -> None:
    user = new_user()
    page = await open_page(user)
    await page.say("/stream 5")
    await page.until_idle()
    async with crowded(home, user):
        await page.edit("article.user", "0")
        await page.tab.until(f"document.querySelector('{FIELD}').value === '/stream 50'")
    await page.until_idle()
    assert await page.said() == [("user", "/stream 5"), ("assistant", spoken(5))]


async def test_stop_reaches_a_message_that_the_server_does_not_have_yet(open_page: OpenPage, home: Stack) -> None:
    page = await open_page()
    (api,) = home.apis
    api.send(signal.SIGSTOP)
    try:
        await page.say("/stream 5000 20")
        await page.tab.click(STOP)
    finally:
        api.send(signal.SIGCONT)
    await page.tab.until(f"document.querySelector('{STOP}') === null")
    assert all(len(answer) < len(spoken(1000)) for answer in await page.answers())


async def test_what_waits_to_be_sent_does_not_bring_a_deleted_conversation_back(
    open_page: OpenPage, home: Stack
) -> None:
    page = await open_page()
    await page.say("/stream 5")
    await page.until_idle()
    other = await open_page(page.user, await page.path())
    await other.until_idle()
    await page.tab.offline(True)
    await page.say("/stream 6")
    await page.tab.until("document.querySelector('.reconnecting') !== null")
    await other.tab.hover(".sidebar li.current")
    await other.tab.click('.sidebar li.current [aria-label^="Delete"]')
    await other.go("/library")  # who leaves the page does not undo any more
    async with home.client(page.user) as client:
        async with asyncio.timeout(LIMIT):
            while (await client.get("/api/chat/sessions")).json()["total"] > 0:
                await asyncio.sleep(0.05)  # between two questions of a bounded wait
        await page.tab.offline(False)
        await page.tab.until("document.querySelector('h1')?.innerText === 'This conversation is not here'")
        await page.reload()
        await page.tab.until("document.querySelector('h1')?.innerText === 'This conversation is not here'")
        assert (await client.get("/api/chat/sessions")).json()["total"] == 0
    await page.tab.click("main .scroll a")
    await page.tab.until(f"document.querySelector('{FIELD}')?.value === '/stream 6'")  # and it is not lost
