"""The list of conversations: searched, renamed, deleted and brought back."""

from __future__ import annotations

from tests.browser.chat_page import ChatPage, spoken
from tests.browser.conftest import OpenPage


async def _two_sessions(page: ChatPage) -> None:
    for n, text in enumerate(("/stream 3", "/stream 4"), start=1):
        await page.tab.click(".sidebar .new")
        await page.say(text)
        await page.until_idle()
        await page.tab.until(f"document.querySelectorAll('.sidebar li').length === {n}")


async def test_a_deleted_conversation_comes_back_when_undone_and_is_gone_otherwise(open_page: OpenPage) -> None:
    page = await open_page()
    await _two_sessions(page)
    address = await page.path()
    await page.tab.hover(".sidebar li.current")
    await page.tab.click('.sidebar li.current [aria-label^="Delete"]')
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    assert await page.path() == "/"
    await page.tab.click(".undo button")
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 2")
    await page.go(address)
    await page.until_idle()
    assert await page.answers() == [spoken(4)]
    await page.tab.hover(".sidebar li.current")
    await page.tab.click('.sidebar li.current [aria-label^="Delete"]')
    await page.tab.until("document.querySelector('.undo') !== null")
    other = await open_page(page.user)  # leaving the page does not take the wish back
    await page.go("/library")
    await other.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await other.go(address)
    await other.tab.until("document.querySelector('h1')?.innerText === 'This conversation is not here'")


async def test_a_conversation_is_renamed_and_found_by_its_title_in_every_tab(open_page: OpenPage) -> None:
    page = await open_page()
    await _two_sessions(page)
    other = await open_page(page.user)
    await other.tab.until("document.querySelectorAll('.sidebar li').length === 2")
    await page.tab.hover(".sidebar li.current")
    await page.tab.click('.sidebar li.current [aria-label^="Rename"]')
    await page.tab.type(".sidebar .rename", "Zebra")
    await page.tab.press("Enter")
    await other.tab.until("document.querySelector('.sidebar nav').innerText.includes('Zebra')")
    await other.tab.type('[aria-label="Search conversations"]', "zeb")
    await other.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    assert await other.titles() == ["Zebra"]
