"""Tests of unusual texts, addresses and moments: the page keeps working, and no message is lost."""

from __future__ import annotations

import asyncio
import signal

from tests.browser.busy_user import at_the_turn_limit
from tests.browser.chat_page import FIELD, STOP, stream_text
from tests.browser.conftest import OpenPage
from tests.browser.driving import LIMIT
from tests.e2e.chat_api import converse, open_session
from tests.e2e.stack import Stack, new_user


async def test_markdown_that_is_nested_too_deeply_is_shown_as_plain_text(open_page: OpenPage) -> None:
    page = await open_page()
    deep = ">" * 3500
    await page.send(f"/say {deep}")
    await page.until_idle()
    assert await page.answers() == [deep]


async def test_an_answer_whose_rendering_is_slow_is_complete_when_it_has_ended(open_page: OpenPage) -> None:
    page = await open_page()
    await page.tab.before("""const { get, set } = Object.getOwnPropertyDescriptor(Node.prototype, "nodeValue");
        Object.defineProperty(Node.prototype, "nodeValue", { get, set(text) {
            for (const began = performance.now(); performance.now() < began + 300;); // React sets it in each render
            set.call(this, text);
        } });""")
    await page.go("/")
    await page.send("/stream 60 10")
    await page.until_idle()
    assert await page.answers() == [stream_text(60)]


async def test_long_code_is_shown_as_a_code_block(open_page: OpenPage, stack: Stack) -> None:
    user, code = new_user(), f"{'x' * 199}\n" * 120
    async with stack.client(user) as client:
        session = await open_session(client)
        await converse(client, session, "/say ```python\r" + code.replace("\n", "\r") + "```")
    page = await open_page(user, f"/c/{session}")
    await page.until_idle()
    await page.tab.shows("document.querySelector('figure.code code').textContent", code.rstrip("\n"))
    await page.tab.until("document.querySelector('figure.code [aria-label=\"Copy code\"]') !== null")


async def test_unknown_addresses_show_a_message(open_page: OpenPage) -> None:
    page = await open_page()
    await page.go("/c/0123456789abcdef")
    await page.tab.until("document.querySelector('h1')?.innerText === 'Conversation not found'")
    await page.tab.click("main .scroll a")
    await page.tab.until("document.querySelector('.welcome') !== null")
    await page.go("/build?flowID=100%25")
    await page.tab.until("document.querySelector('main .problem') !== null")


async def test_a_conversation_that_grew_by_more_than_a_page_is_whole(open_page: OpenPage, stack: Stack) -> None:
    user, before, after = new_user(), 10, 75
    async with stack.client(user) as client:
        session = await open_session(client)
        questions = [f"/stream {n}" for n in range(1, after + 1)]
        await converse(client, session, *questions[:before])
        page = await open_page(user, f"/c/{session}")
        await page.until_idle(before)
        await page.tab.offline(True)
        await converse(client, session, *questions[before:])
        await page.tab.offline(False)
        await page.until_text(f"{after - 2} {after - 1}")
    assert [text for text in await page.read_upwards(questions[0]) if text.startswith("/stream")] == questions


async def test_a_refused_edit_returns_to_the_input(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    page = await open_page(user)
    await page.send("/stream 5")
    await page.until_idle()
    async with at_the_turn_limit(stack, user):
        await page.edit("article.user", "0")
        await page.tab.until(f"document.querySelector('{FIELD}').value === '/stream 50'")
    await page.until_idle()
    assert await page.messages() == [("user", "/stream 5"), ("assistant", stream_text(5))]


async def test_stop_reaches_a_message_that_the_server_does_not_have_yet(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page()
    (api,) = stack.apis
    api.send(signal.SIGSTOP)
    try:
        await page.send("/stream 5000 50")
        await page.tab.click(STOP)
    finally:
        api.send(signal.SIGCONT)
    await page.tab.until(f"document.querySelector('{STOP}') === null")
    assert all(len(answer) < len(stream_text(1000)) for answer in await page.answers())


async def test_unsent_messages_do_not_restore_a_deleted_conversation(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    other = await open_page(page.user, await page.path())
    await other.until_idle()
    await page.tab.offline(True)
    await page.send("/stream 6")
    await page.tab.until("document.querySelector('.reconnecting') !== null")
    await other.tab.hover(".sidebar li.current")
    await other.tab.click('.sidebar li.current [aria-label^="Delete"]')
    await other.go("/library")  # after leaving the page the deletion can no longer be undone
    async with stack.client(page.user) as client:
        async with asyncio.timeout(LIMIT):
            while (await client.get("/api/chat/sessions")).json()["total"] > 0:
                await asyncio.sleep(0.05)  # between two checks of a bounded wait
        await page.tab.offline(False)
        await page.tab.until("document.querySelector('h1')?.innerText === 'Conversation not found'")
        await page.reload()
        await page.tab.until("document.querySelector('h1')?.innerText === 'Conversation not found'")
        assert (await client.get("/api/chat/sessions")).json()["total"] == 0
    await page.tab.click("main .scroll a")
    await page.tab.until(f"document.querySelector('{FIELD}')?.value === '/stream 6'")  # and the text is not lost
