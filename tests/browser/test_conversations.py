"""Tests of a conversation on the page: sending, reloading, following, stopping, editing. Each text is shown exactly
once."""

from __future__ import annotations

import asyncio

from tests.browser.busy_user import STREAMS, at_the_turn_limit
from tests.browser.chat_page import FIELD, SEND, STOP, stream_text
from tests.browser.conftest import OpenPage
from tests.e2e.stack import Stack, new_user

PARTS = """[...document.querySelector('.answer').children].flatMap((one) =>
    one.matches('.prose') ? ['text'] : one.matches('.tool') ? ['tool']
    : one.matches('.steered') ? [`You: ${one.innerText}`] : [])"""
"""The parts of the first answer, in order."""


async def test_a_message_is_answered_and_the_session_has_an_address_and_a_title(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/reason hm\n/stream 50 5")
    await page.until_idle()
    assert await page.messages() == [("user", "/reason hm\n/stream 50 5"), ("assistant", stream_text(50))]
    assert (await page.path()).startswith("/c/")
    await page.tab.until("document.querySelector('.sidebar li a')?.innerText.includes('stream 50')")
    assert await page.tab.js("document.querySelector('details.reasoning').open") is False
    assert await page.serious_faults() == []
    await page.reload()
    await page.until_idle()
    assert await page.messages() == [("user", "/reason hm\n/stream 50 5"), ("assistant", stream_text(50))]


async def test_a_page_reloaded_in_mid_answer_shows_the_rest_of_the_answer(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 50 45")
    await page.until_text("6 7")
    await page.reload()
    await page.until_text("20 21")
    await page.reload()
    await page.until_idle()
    assert await page.messages() == [("user", "/stream 50 45"), ("assistant", stream_text(50))]


async def test_a_second_tab_follows_and_can_stop_the_answer(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 40 5")
    await page.until_idle()
    other = await open_page(page.user, await page.path())
    await page.send("/stream 45 35")
    await other.until_text("20 21")
    await asyncio.gather(page.until_idle(2), other.until_idle(2))
    assert await page.messages() == await other.messages()
    assert await page.answers() == [stream_text(40), stream_text(45)]
    await page.send("/stream 5000 50")
    await other.until_text("5 6")
    await other.tab.click(STOP)
    await asyncio.gather(page.until_idle(3), other.until_idle(3))
    first, second = (await page.answers())[-1], (await other.answers())[-1]
    assert first == second == stream_text(len(first.split()))
    assert "Stopped" in await page.tab.js("document.querySelector('.thread').innerText")


async def test_returning_to_a_conversation_leaves_one_stream_open(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 150 80")
    await page.until_text("5 6")
    address = await page.path()
    for _ in range(STREAMS + 1):
        await page.tab.click('.sidebar a[href="/library"]')
        await page.tab.until("document.querySelector('h1')?.innerText === 'Agents'")
        await page.tab.click(f'.sidebar a[href="{address}"]')
        await page.tab.until("document.querySelectorAll('.thread article').length === 2")
    await page.until_idle()
    assert await page.answers() == [stream_text(150)]


async def test_stop_ends_the_answer_on_the_server(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5000 40")
    await page.until_text("10 11")
    await page.tab.click(STOP)
    await page.until_idle()
    (stopped,) = await page.answers()
    assert stopped == stream_text(len(stopped.split()))
    await page.reload()
    await page.until_idle()
    assert await page.answers() == [stopped]


async def test_messages_sent_during_an_answer_are_shown_as_waiting_even_after_a_reload(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5000 40")  # long enough to last until Stop, even on a slow machine
    await page.until_text("5 6")
    await page.send("/stream 7 5")
    await page.send("/stream 9 5")
    await page.tab.until("document.querySelectorAll('.queued button').length === 2")  # the server has accepted them
    await page.reload()
    await page.tab.until("document.querySelectorAll('.queued').length === 2")
    await page.until_text("5 6")
    await page.tab.click(STOP)
    await page.until_idle(3)
    stopped = (await page.answers())[0]
    expected = [
        "/stream 5000 40",
        stream_text(len(stopped.split())),
        "/stream 7 5",
        stream_text(7),
        "/stream 9 5",
        stream_text(9),
    ]
    assert [text for _, text in await page.messages()] == expected


async def test_messages_sent_during_an_answer_are_answered_in_order(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 120 10")
    await page.until_text("5 6")
    await page.send("/stream 7 5")
    await page.send("/stream 9 5")
    await page.until_idle(3)
    expected = ["/stream 120 10", stream_text(120), "/stream 7 5", stream_text(7), "/stream 9 5", stream_text(9)]
    assert [text for _, text in await page.messages()] == expected


async def test_an_answer_can_be_regenerated_and_a_question_edited(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    first = await page.tab.js("document.querySelector('article.answer').dataset.message")
    await page.tab.click('[aria-label="Answer again"]')
    await page.tab.until(f"document.querySelector('article.answer')?.dataset.message !== '{first}'")
    await page.until_idle()
    assert await page.messages() == [("user", "/stream 5"), ("assistant", stream_text(5))]
    await page.send("/stream 6")
    await page.until_idle(2)
    await page.begin_edit("article.user")
    warning = "Sending this edit begins a new version. 1 later message and its answer stay with this one."
    await page.tab.until(f"document.querySelector('.editor .note')?.innerText === '{warning}'")
    await page.tab.type(".editor textarea", "0")
    await page.tab.press("Enter")
    await page.until_text("48 49")
    await page.until_idle()
    assert await page.messages() == [("user", "/stream 50"), ("assistant", stream_text(50))]
    await page.reload()
    await page.until_idle()
    assert await page.messages() == [("user", "/stream 50"), ("assistant", stream_text(50))]


async def test_an_answer_that_fails_keeps_its_text_and_shows_the_error_once(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5\n/fail")
    await page.until_idle()
    for _ in ("as it was streamed", "as it was kept"):
        assert await page.answers() == [stream_text(5)]
        await page.tab.shows("document.querySelectorAll('.problem').length", 1)
        await page.reload()
        await page.until_idle()
    await page.send("/stream 6")
    await page.until_idle(2)
    assert await page.answers() == [stream_text(5), stream_text(6)]


async def test_markdown_is_shown_without_html_and_images_load_on_request(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/say # Head <img src=x onerror=alert(1)> **bold** ![p](https://example.com/p.png)")
    await page.until_idle()
    html = await page.tab.js("document.querySelector('.answer .prose').innerHTML")
    assert "<h1>" in html
    assert "<strong>bold</strong>" in html
    assert "<img" not in html
    assert 'rel="noopener noreferrer"' in html


async def test_streamed_markdown_looks_like_stored_markdown(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/markdown\n/markdown")
    await page.until_idle()
    shapes = "[...document.querySelectorAll('.prose :is(h2, li, td, th, blockquote, pre, input, a, em, p)')].map(\n" + (
        "(one) => [one.tagName, one.className, one.style.textAlign, one.textContent])"
    )
    streamed = await page.tab.js(shapes)
    assert len([1 for tag, *_ in streamed if tag == "TD"]) == 12
    await page.reload()
    await page.until_idle()
    assert await page.tab.js(shapes) == streamed


async def test_new_text_below_does_not_scroll_a_reader_above(open_page: OpenPage) -> None:
    page = await open_page(height=500)
    await page.send("/stream 1500 2")
    at_end = "(b => b.scrollHeight - b.clientHeight - b.scrollTop < 60)(document.querySelector('.scroll'))"
    await page.until_text("600 601")
    await page.tab.until(at_end)
    await page.tab.wheel(-300)
    await page.tab.until(f"!({at_end})")
    top = await page.tab.js("document.querySelector('.scroll').scrollTop")
    await page.until_text("900 901")
    assert await page.tab.js("document.querySelector('.scroll').scrollTop") == top
    await page.tab.click('[aria-label="To the newest message"]')
    await page.tab.until(at_end)


async def test_everything_can_be_reached_on_a_phone(open_page: OpenPage) -> None:
    page = await open_page(width=360, height=640, scheme="dark")
    await page.send("/stream 300 2")
    await page.until_idle()
    await page.tab.until("document.querySelector('.bar-above .name').innerText === document.title.split(' · ')[0]")
    assert await page.answers() == [stream_text(300)]
    assert await page.tab.js("document.documentElement.scrollWidth <= innerWidth")
    assert await page.serious_faults() == []
    await page.tab.click('[aria-label="Open the sidebar"]')
    await page.tab.click('.sidebar a[href="/library"]')
    await page.tab.until("document.querySelector('h1')?.innerText === 'Agents'")
    assert await page.serious_faults() == []
    await page.tab.click('[aria-label="Open the sidebar"]')
    await page.tab.click(".sidebar li a")
    await page.until_idle()
    assert await page.answers() == [stream_text(300)]
    await page.tab.until(f"document.querySelector('{FIELD}') !== null")


async def test_a_refused_message_returns_to_the_input(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    page = await open_page(user)
    async with at_the_turn_limit(stack, user):
        await page.send("/stream 5")
        await page.tab.until("document.querySelector('.problem')?.innerText.includes('Too many turns')")
        await page.tab.until(f"document.querySelector('{FIELD}').value === '/stream 5'")
        await page.tab.until("document.querySelector('.thread article') === null")
        assert await page.path() == "/"
    await page.tab.click(SEND)
    await page.until_idle()
    assert await page.messages() == [("user", "/stream 5"), ("assistant", stream_text(5))]


async def test_an_anonymous_user_finds_their_conversation_again(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    await page.send("/stream 5")
    await page.until_idle()
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await page.go("/")
    await page.tab.click(".sidebar li a")
    await page.until_idle()
    assert await page.messages() == [("user", "/stream 5"), ("assistant", stream_text(5))]


async def test_send_now_puts_a_message_into_the_running_answer(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send('/stream 60 45\n/tool add_understanding {"user_name":"Ada"}\n/then\n/say the plan')
    await page.until_text("5 6")
    await page.tab.type(FIELD, "/say something else")
    assert await page.tab.js("document.querySelector('.composer [type=submit]').ariaLabel") == "Queue"
    await page.tab.click(".composer .now")
    await page.tab.until("document.querySelector('.queued .note')?.innerText.includes('next step')")
    await page.until_idle()
    shown = await page.tab.js(PARTS)
    assert shown == ["text", "tool", "You: /say something else", "text"]
    assert (await page.answers())[0].endswith("something else")
    assert await page.serious_faults() == []
    await page.reload()
    await page.until_idle()
    assert await page.tab.js(PARTS) == shown
