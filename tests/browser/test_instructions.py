"""The user's instructions on the page: written, kept, and told to models."""

from __future__ import annotations

from tests.browser.conftest import OpenPage

BUTTON, FIELD = '.sidebar [aria-label="Instructions"]', "dialog textarea"
_VALUE = f"document.querySelector('{FIELD}')?.disabled === false && document.querySelector('{FIELD}').value"


async def test_instructions_are_written_by_the_keyboard_and_kept(open_page: OpenPage) -> None:
    page = await open_page()
    await page.tab.until(f"document.querySelector('{BUTTON}') !== null")
    await page.tab.click(BUTTON)
    await page.tab.until(f"{_VALUE} === ''")
    assert await page.serious_faults() == []
    await page.tab.type(FIELD, "Call me Ada.")
    await page.tab.press("Tab")
    await page.tab.press("Enter")
    await page.tab.until("document.querySelector('dialog[open]') === null")
    other = await open_page(page.user)
    await other.tab.until(f"document.querySelector('{BUTTON}') !== null")
    await other.tab.click(BUTTON)
    await other.tab.until(f"{_VALUE} === 'Call me Ada.'")
    await other.tab.press("Escape")
    await other.tab.until("document.querySelector('dialog[open]') === null")


async def test_an_anonymous_visitor_has_no_instructions(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    await page.tab.until("document.querySelector('.sidebar .bottom button') !== null")
    assert await page.tab.js(f"document.querySelector('{BUTTON}')") is None
