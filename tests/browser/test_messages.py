"""What can be done with messages: copied, kept for later, left as they were, taken back; and what they cost."""

from __future__ import annotations

import json
import re

import asyncpg

from tests.browser.chat_page import FIELD, spoken
from tests.browser.conftest import OpenPage
from tests.e2e.stack import Stack

_SOURCES = """[...document.querySelectorAll('article.answer .sources a')].map((a) => [
    a.innerText, a.getAttribute('href'), a.rel, a.target])"""
_DRAFT = f"document.querySelector('{FIELD}').value"


async def _rewrite_answer(home: Stack, session: str, parts: list[dict[str, str]]) -> None:
    connection = await asyncpg.connect(home.servers.postgres)
    try:
        await connection.execute(
            "UPDATE messages SET parts = $1 WHERE session_id = $2 AND role = 'assistant'", json.dumps(parts), session
        )
    finally:
        await connection.close()


async def test_a_message_an_answer_and_its_code_are_copied_as_they_were_written(
    open_page: OpenPage, home: Stack
) -> None:
    page = await open_page()
    await page.say("/stream 5")
    await page.until_idle()
    code = "if a < b:\n    print('“&amp;”')"
    answer = f"Say **this**:\n\n```python\n{code}\n```\n\nDone."
    # the scripted model says no line breaks
    await _rewrite_answer(home, await page.session(), [{"type": "text", "text": answer}])
    await page.reload()
    for what, text in (("answer", answer), ("code", code), ("message", "/stream 5")):
        await page.tab.hover("article.user .bubble")
        await page.tab.click(f'[aria-label="Copy {what}"]')
        await page.tab.until(f"document.querySelector('[title=\"Copy {what}\"][aria-label=Copied]') !== null")
        assert await page.tab.clipboard() == text


async def test_the_sources_of_an_answer_are_links_under_it_also_later(open_page: OpenPage, home: Stack) -> None:
    page = await open_page()
    await page.say("/source https://example.org/a?b=1 A page\n/source javascript:alert(1) None\n/stream 5")
    await page.until_idle()
    links = [["A page", "https://example.org/a?b=1", "noopener noreferrer", "_blank"]]
    for _ in ("as it was streamed", "as it was kept"):
        assert await page.tab.js(_SOURCES) == links
        assert await page.answers() == [spoken(5)]
        assert await page.serious_faults() == []
        await page.reload()
        await page.until_idle()
    evil = {"type": "source-url", "sourceId": "s9", "url": "javascript:alert(1)", "title": "Evil"}
    await _rewrite_answer(home, await page.session(), [{"type": "text", "text": "so"}, evil])
    await page.reload()
    await page.until_text("so")
    assert await page.tab.js(_SOURCES) == [["Evil", None, "noopener noreferrer", "_blank"]]


async def test_what_a_conversation_costs_is_shown_when_it_was_answered_and_later(open_page: OpenPage) -> None:
    page = await open_page()
    status = "document.querySelector('.foot .status').innerText"
    await page.say("/stream 100")
    await page.tab.until(f"/^[0-9,]+ tokens$/.test({status})")
    cost = await page.tab.js(status)
    assert int(re.sub(r"\D", "", cost)) > 100
    await page.reload()
    await page.tab.until(f"{status} === {json.dumps(cost)}")


async def test_what_is_not_sent_yet_stays_with_its_conversation(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 3")
    await page.until_idle()
    first = await page.path()
    await page.tab.type(FIELD, "for the first")
    await page.tab.click(".sidebar .new")
    await page.tab.until("location.pathname === '/'")
    assert await page.tab.js(_DRAFT) == ""
    await page.say("/stream 4")
    await page.until_idle()
    await page.tab.type(FIELD, "for the second")
    await page.tab.click(f".sidebar a[href='{first}']")
    await page.tab.until(f"{_DRAFT} === 'for the first'")
    await page.reload()
    await page.tab.until(f"{_DRAFT} === 'for the first' && document.activeElement?.matches('{FIELD}')")
    await page.tab.press("Enter")
    await page.until_idle(2)
    await page.reload()
    await page.until_idle(2)
    assert await page.tab.js(_DRAFT) == ""
    await page.tab.back()
    await page.tab.until(f"{_DRAFT} === 'for the second'")


async def test_escape_leaves_a_message_as_it_was(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 5")
    await page.until_idle()
    told = await page.said()
    await page.begin_edit("article.user")
    await page.tab.type(".editor textarea", "0")
    await page.tab.press("Escape")
    await page.tab.until("document.querySelector('.editor') === null")
    await page.tab.until("document.activeElement.ariaLabel === 'Edit message'")
    assert await page.said() == told
    await page.reload()
    await page.until_idle()
    assert await page.said() == told


async def test_a_message_that_waits_can_be_taken_back(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 5000 200")  # slowly: what is clicked must not move
    await page.until_text("0 1")
    await page.say("/stream 7")
    await page.say("/stream 8")
    await page.tab.until("document.querySelectorAll('.queued .link').length === 2")
    await page.tab.click(".queued .link")
    await page.tab.until("document.querySelectorAll('.queued').length === 1")
    await page.tab.click('[aria-label="Stop"]')
    await page.until_idle(2)
    for _ in ("as it was streamed", "as it was kept"):
        told = await page.said()
        assert [told[0][1], *(text for _, text in told[2:])] == ["/stream 5000 200", "/stream 8", spoken(8)]
        await page.reload()
        await page.until_idle(2)
