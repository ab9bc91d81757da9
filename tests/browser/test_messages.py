"""Tests of what a user can do with messages: copy, draft, edit, withdraw. Also of their sources and their usage."""

from __future__ import annotations

import json
import re

import asyncpg

from tests.browser.chat_page import FIELD, stream_text
from tests.browser.conftest import OpenPage
from tests.e2e.stack import Stack

_SOURCES = """[...document.querySelectorAll('article.answer .sources a')].map((a) => [
    a.innerText, a.getAttribute('href'), a.rel, a.target])"""
_DRAFT = f"document.querySelector('{FIELD}').value"


async def _rewrite_answer(stack: Stack, session: str, parts: list[dict[str, str]]) -> None:
    connection = await asyncpg.connect(stack.servers.postgres)
    try:
        await connection.execute(
            "UPDATE messages SET parts = $1 WHERE session_id = $2 AND role = 'assistant'", json.dumps(parts), session
        )
    finally:
        await connection.close()


async def test_a_message_an_answer_and_its_code_are_copied_as_they_were_written(
    open_page: OpenPage, stack: Stack
) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    code = "if a < b:\n    print('“&amp;”')"
    answer = f"Say **this**:\n\n```python\n{code}\n```\n\nDone."
    # the scripted model writes no line breaks
    await _rewrite_answer(stack, await page.session(), [{"type": "text", "text": answer}])
    await page.reload()
    for what, text in (("answer", answer), ("code", code), ("message", "/stream 5")):
        await page.tab.hover("article.user .bubble")
        await page.tab.click(f'[aria-label="Copy {what}"]')
        await page.tab.until(f"document.querySelector('[title=\"Copy {what}\"][aria-label=Copied]') !== null")
        assert await page.tab.clipboard() == text


async def test_the_sources_of_an_answer_are_links_under_it_even_after_a_reload(
    open_page: OpenPage, stack: Stack
) -> None:
    page = await open_page()
    await page.send("/source https://example.org/a?b=1 A page\n/source javascript:alert(1) None\n/stream 5")
    await page.until_idle()
    links = [["A page", "https://example.org/a?b=1", "noopener noreferrer", "_blank"]]
    for _ in ("as it was streamed", "as it was stored"):
        await page.tab.shows(_SOURCES, links)
        assert await page.answers() == [stream_text(5)]
        assert await page.serious_faults() == []
        await page.reload()
        await page.until_idle()
    evil = {"type": "source-url", "sourceId": "s9", "url": "javascript:alert(1)", "title": "Evil"}
    await _rewrite_answer(stack, await page.session(), [{"type": "text", "text": "so"}, evil])
    await page.reload()
    await page.until_text("so")
    await page.tab.shows(_SOURCES, [["Evil", None, "noopener noreferrer", "_blank"]])


async def test_the_usage_of_a_conversation_is_shown_after_an_answer_and_after_a_reload(open_page: OpenPage) -> None:
    page = await open_page()
    status = "document.querySelector('.foot .status').innerText"
    await page.send("/stream 100")
    await page.tab.until(f"/^[0-9,]+ tokens$/.test({status})")
    cost = await page.tab.js(status)
    assert int(re.sub(r"\D", "", cost)) > 100
    await page.reload()
    await page.tab.until(f"{status} === {json.dumps(cost)}")


async def test_a_draft_stays_with_its_conversation(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 3")
    await page.until_idle()
    first = await page.path()
    await page.tab.type(FIELD, "for the first")
    await page.tab.click(".sidebar .new")
    await page.tab.until("location.pathname === '/'")
    await page.tab.shows(_DRAFT, "")
    await page.send("/stream 4")
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
    await page.tab.shows(_DRAFT, "")
    await page.tab.back()
    await page.tab.until(f"{_DRAFT} === 'for the second'")


async def test_escape_cancels_an_edit(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    before = await page.messages()
    await page.begin_edit("article.user")
    await page.tab.type(".editor textarea", "0")
    await page.tab.press("Escape")
    await page.tab.until("document.querySelector('.editor') === null")
    await page.tab.until("document.activeElement.ariaLabel === 'Edit message'")
    assert await page.messages() == before
    await page.reload()
    await page.until_idle()
    assert await page.messages() == before


async def test_a_waiting_message_can_be_withdrawn(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5000 200")  # slowly, because what is clicked must not move
    await page.until_text("0 1")
    await page.send("/stream 7")
    await page.send("/stream 8")
    await page.tab.until("document.querySelectorAll('.queued .link').length === 2")
    await page.tab.click(".queued .link")
    await page.tab.until("document.querySelectorAll('.queued').length === 1")
    await page.tab.click('[aria-label="Stop"]')
    await page.until_idle(2)
    for _ in ("as it was streamed", "as it was stored"):
        shown = await page.messages()
        assert [shown[0][1], *(text for _, text in shown[2:])] == ["/stream 5000 200", "/stream 8", stream_text(8)]
        await page.reload()
        await page.until_idle(2)


async def test_an_answer_that_did_not_end_by_itself_says_so_and_can_be_continued(open_page: OpenPage) -> None:
    page = await open_page()
    note = "[...document.querySelectorAll('article.answer .note')].map((n) => n.innerText.trim())"
    ends = (
        ("/say It is\n/finish length", "Cut off at the length limit Continue"),
        ("/reason Hm\n/finish length", "The model thought until it reached its limit, and gave no answer."),
        ("/finish stop", "The model gave no answer."),
        ("/say Well\n/finish content-filter It could do harm.", "It could do harm."),
    )
    for answers, (script, said) in enumerate(ends, 1):
        await page.send(script)
        await page.until_idle(answers)
        await page.tab.until(f"{note}.at(-1) === {json.dumps(said)}")  # as it was streamed
        await page.reload()
        await page.until_idle(answers)
        await page.tab.until(f"{note}.at(-1) === {json.dumps(said)}")  # as it was kept
    assert await page.serious_faults() == []
    await page.send("/say It is\n/finish length")
    await page.until_idle(len(ends) + 1)
    await page.tab.click(".note button")
    await page.tab.until("[...document.querySelectorAll('.bubble')].at(-1).innerText === 'Continue where you stopped.'")


async def test_a_result_that_was_cut_is_shown_whole_on_demand(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page()
    await page.send('/tool find_library_agent {"query": "x"}')
    await page.until_idle()
    connection = await asyncpg.connect(stack.servers.postgres)
    try:
        await connection.execute(
            """UPDATE messages SET parts = jsonb_set(parts::jsonb, '{0,output,text}', to_jsonb($1::text))::json
            WHERE session_id = $2 AND role = 'tool'""",
            "long " * 50_000 + "the end of it",
            await page.session(),
        )
    finally:
        await connection.close()
    await page.reload()
    await page.tab.click(".tool details summary")
    output = "document.querySelector('.tool [aria-label=Output]').textContent"
    assert "the end of it" not in await page.tab.js(output)
    await page.tab.click(".tool .note button.link")
    await page.tab.until(f"{output}.includes('the end of it')")
    assert not await page.tab.js("document.querySelector('.tool .note button.link') !== null")
    assert await page.serious_faults() == []
