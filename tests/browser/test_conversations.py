"""A conversation on the page: written, reloaded, followed, stopped, edited. The text is exact and stands there once."""

from __future__ import annotations

import asyncio

from tests.browser.chat_page import FIELD, STOP, spoken
from tests.browser.conftest import OpenPage
from tests.browser.crowd import STREAMS, crowded
from tests.e2e.stack import Stack, new_user


async def test_a_message_is_answered_and_the_session_has_an_address_and_a_title(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/reason hm\n/stream 50 5")
    await page.until_idle()
    assert await page.said() == [("user", "/reason hm\n/stream 50 5"), ("assistant", spoken(50))]
    assert (await page.path()).startswith("/c/")
    await page.tab.until("document.querySelector('.sidebar li a')?.innerText.includes('stream 50')")
    assert await page.tab.js("document.querySelector('details.reasoning').open") is False
    assert await page.serious_faults() == []
    await page.reload()
    await page.until_idle()
    assert await page.said() == [("user", "/reason hm\n/stream 50 5"), ("assistant", spoken(50))]


async def test_a_page_reloaded_in_mid_answer_goes_on_where_the_answer_is(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 150 15")
    await page.until_text("20 21")
    await page.reload()
    await page.until_text("60 61")
    await page.reload()
    await page.until_idle()
    assert await page.said() == [("user", "/stream 150 15"), ("assistant", spoken(150))]


async def test_a_second_tab_follows_and_can_stop_the_answer(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 40 5")
    await page.until_idle()
    other = await open_page(page.user, await page.path())
    await page.say("/stream 100 15")
    await other.until_text("20 21")
    await asyncio.gather(page.until_idle(2), other.until_idle(2))
    assert await page.said() == await other.said()
    assert await page.answers() == [spoken(40), spoken(100)]
    await page.say("/stream 5000 15")
    await other.until_text("5 6")
    await other.tab.click(STOP)
    await asyncio.gather(page.until_idle(3), other.until_idle(3))
    first, second = (await page.answers())[-1], (await other.answers())[-1]
    assert first == second == spoken(len(first.split()))
    assert "Stopped" in await page.tab.js("document.querySelector('.thread').innerText")


async def test_a_conversation_that_is_left_and_looked_at_again_holds_one_stream(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 600 20")
    await page.until_text("5 6")
    address = await page.path()
    for _ in range(STREAMS + 1):
        await page.tab.click('.sidebar a[href="/library"]')
        await page.tab.until("document.querySelector('h1')?.innerText === 'Agents'")
        await page.tab.click(f'.sidebar a[href="{address}"]')
        await page.tab.until("document.querySelectorAll('.thread article').length === 2")
    await page.until_idle()
    assert await page.answers() == [spoken(600)]


async def test_stop_ends_the_answer_on_the_server(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 5000 10")
    await page.until_text("10 11")
    await page.tab.click(STOP)
    await page.until_idle()
    (stopped,) = await page.answers()
    assert stopped == spoken(len(stopped.split()))
    await page.reload()
    await page.until_idle()
    assert await page.answers() == [stopped]


async def test_messages_while_busy_are_shown_as_waiting_also_after_a_reload(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 5000 10")  # it ends when it is told to, however slow the machine is
    await page.until_text("5 6")
    await page.say("/stream 7 5")
    await page.say("/stream 9 5")
    await page.tab.until("document.querySelectorAll('.queued button').length === 2")  # the server has them
    await page.reload()
    await page.tab.until("document.querySelectorAll('.queued').length === 2")
    await page.until_text("5 6")
    await page.tab.click(STOP)
    await page.until_idle(3)
    stopped = (await page.answers())[0]
    told = ["/stream 5000 10", spoken(len(stopped.split())), "/stream 7 5", spoken(7), "/stream 9 5", spoken(9)]
    assert [text for _, text in await page.said()] == told


async def test_messages_while_busy_are_answered_in_their_order(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 120 10")
    await page.until_text("5 6")
    await page.say("/stream 7 5")
    await page.say("/stream 9 5")
    await page.until_idle(3)
    told = ["/stream 120 10", spoken(120), "/stream 7 5", spoken(7), "/stream 9 5", spoken(9)]
    assert [text for _, text in await page.said()] == told


async def test_an_answer_can_be_had_again_and_a_question_changed(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 5")
    await page.until_idle()
    first = await page.tab.js("document.querySelector('article.answer').dataset.message")
    await page.tab.click('[aria-label="Answer again"]')
    await page.tab.until(f"document.querySelector('article.answer')?.dataset.message !== '{first}'")
    await page.until_idle()
    assert await page.said() == [("user", "/stream 5"), ("assistant", spoken(5))]
    await page.say("/stream 6")
    await page.until_idle(2)
    await page.begin_edit("article.user")
    await page.tab.until("document.querySelector('.editor .note')?.innerText.startsWith('A later message goes')")
    await page.tab.type(".editor textarea", "0")
    await page.tab.press("Enter")
    await page.until_text("48 49")
    await page.until_idle()
    assert await page.said() == [("user", "/stream 50"), ("assistant", spoken(50))]
    await page.reload()
    await page.until_idle()
    assert await page.said() == [("user", "/stream 50"), ("assistant", spoken(50))]


async def test_an_answer_that_fails_keeps_its_text_and_says_why_once(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 5\n/fail")
    await page.until_idle()
    for _ in ("as it was streamed", "as it was kept"):
        assert await page.answers() == [spoken(5)]
        assert await page.tab.js("document.querySelectorAll('.problem').length") == 1
        await page.reload()
        await page.until_idle()
    await page.say("/stream 6")
    await page.until_idle(2)
    assert await page.answers() == [spoken(5), spoken(6)]


async def test_markdown_is_shown_without_its_html_and_pictures_wait_to_be_asked_for(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/say # Head <img src=x onerror=alert(1)> **bold** ![p](https://example.com/p.png)")
    await page.until_idle()
    html = await page.tab.js("document.querySelector('.answer .prose').innerHTML")
    assert "<h1>" in html
    assert "<strong>bold</strong>" in html
    assert "<img" not in html
    assert 'rel="noopener noreferrer"' in html


async def test_markdown_that_was_streamed_is_shown_as_what_is_kept(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/markdown\n/markdown")
    await page.until_idle()
    shapes = "[...document.querySelectorAll('.prose :is(h2, li, td, th, blockquote, pre, input, a, em, p)')].map(\n" + (
        "(one) => [one.tagName, one.className, one.style.textAlign, one.textContent])"
    )
    streamed = await page.tab.js(shapes)
    assert len([1 for tag, *_ in streamed if tag == "TD"]) == 12
    await page.reload()
    await page.until_idle()
    assert await page.tab.js(shapes) == streamed


async def test_reading_above_is_not_disturbed_by_what_is_written_below(open_page: OpenPage) -> None:
    page = await open_page(height=500)
    await page.say("/stream 1500 2")
    at_end = "(b => b.scrollHeight - b.clientHeight - b.scrollTop < 60)(document.querySelector('.scroll'))"
    await page.until_text("600 601")
    assert await page.tab.js(at_end)
    await page.tab.wheel(-300)
    await page.tab.until(f"!({at_end})")
    top = await page.tab.js("document.querySelector('.scroll').scrollTop")
    await page.until_text("900 901")
    assert await page.tab.js("document.querySelector('.scroll').scrollTop") == top
    await page.tab.click('[aria-label="To the newest message"]')
    await page.tab.until(at_end)


async def test_on_a_phone_everything_is_within_reach(open_page: OpenPage) -> None:
    page = await open_page(width=360, height=640, scheme="dark")
    await page.say("/stream 300 2")
    await page.until_idle()
    await page.tab.until("document.querySelector('.bar-above .name').innerText === document.title.split(' · ')[0]")
    assert await page.answers() == [spoken(300)]
    assert await page.tab.js("document.documentElement.scrollWidth <= innerWidth")
    assert await page.serious_faults() == []
    await page.tab.click('[aria-label="Open the sidebar"]')
    await page.tab.click('.sidebar a[href="/library"]')
    await page.tab.until("document.querySelector('h1')?.innerText === 'Agents'")
    assert await page.serious_faults() == []
    await page.tab.click('[aria-label="Open the sidebar"]')
    await page.tab.click(".sidebar li a")
    await page.until_idle()
    assert await page.answers() == [spoken(300)]
    assert await page.tab.js(f"document.querySelector('{FIELD}') !== null")


async def test_what_the_server_refuses_comes_back_into_the_field(open_page: OpenPage, home: Stack) -> None:
    user = new_user()
    page = await open_page(user)
    async with crowded(home, user):
        await page.say("/stream 5")
        await page.tab.until("document.querySelector('.problem')?.innerText.includes('Too many turns')")
        await page.tab.until(f"document.querySelector('{FIELD}').value === '/stream 5'")
        await page.tab.until("document.querySelector('.thread article') === null")
        assert await page.path() == "/"
    await page.tab.click('[aria-label="Send"]')
    await page.until_idle()
    assert await page.said() == [("user", "/stream 5"), ("assistant", spoken(5))]


async def test_somebody_without_a_token_finds_their_conversation_again(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    await page.say("/stream 5")
    await page.until_idle()
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await page.go("/")
    await page.tab.click(".sidebar li a")
    await page.until_idle()
    assert await page.said() == [("user", "/stream 5"), ("assistant", spoken(5))]
