"""Tests of code in an answer: it is highlighted once it is complete, and its text is exact, even when it is copied."""

from __future__ import annotations

import pytest

from tests.browser.chat_page import FIELD
from tests.browser.conftest import OpenPage
from tests.e2e.chat_api import converse, open_session
from tests.e2e.stack import Stack, new_user

CODE = """\
@cache
def area(r: float) -> float:
    # of a <circle>

    return 3.14 * r ** 2 if r else "none" or None"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_code_is_highlighted_and_copied_exactly(open_page: OpenPage, stack: Stack, scheme: str) -> None:
    user = new_user()
    answer = f"Look:\n\n```python\n{CODE}\n```\n\n```klingon\nnuqneH\n```\n\nThat is all."
    async with stack.client(user) as client:
        session = await open_session(client)
        await converse(client, session, "/say " + answer.replace("\n", "\r"))  # a command is a line
    page = await open_page(user, f"/c/{session}", scheme=scheme)
    await page.tab.until("document.querySelectorAll('figure code span').length > 5")
    await page.tab.shows(
        "[...document.querySelectorAll('figure code')].map((one) => one.textContent)",
        [
            CODE,
            "nuqneH",
        ],
    )
    colours = "new Set([...document.querySelectorAll('figure span')].map((one) => getComputedStyle(one).color)).size"
    assert await page.tab.js(colours) >= 5
    assert await page.serious_faults() == []
    await page.tab.click("figure [aria-label='Copy code']")
    await page.tab.until("document.querySelector('figure [aria-label=Copied]') !== null")
    await page.tab.js(f"document.querySelector('{FIELD}').focus()")
    await page.tab.chord("Control", "v")
    await page.tab.until(f"document.querySelector('{FIELD}').value !== ''")
    await page.tab.shows(f"document.querySelector('{FIELD}').value", CODE)


async def test_a_footnote_links_there_and_back_within_its_own_answer(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    async with stack.client(user) as client:
        session = await open_session(client)
        await converse(client, session, *["/say So[^1] it is.\r\r[^1]: Or so it seems."] * 2)
    page = await open_page(user, f"/c/{session}")
    await page.until_idle(2)
    ids = await page.tab.js("[...document.querySelectorAll('.prose :is(a, li)[id]')].map((one) => one.id)")
    assert len(set(ids)) == len(ids) == 4
    leads = "(one) => one.closest('article').querySelector(one.hash) !== null"
    await page.tab.shows(f"[...document.querySelectorAll('.prose a')].map({leads})", [True] * 4)
    assert await page.serious_faults() == []
