"""The versions of a message on the page: edits and other answers, switched by mouse and keyboard, in two tabs."""

from __future__ import annotations

from tests.browser.chat_page import ChatPage, stream_text
from tests.browser.conftest import OpenPage

_LABELS = "[...document.querySelectorAll('.versions')].map((one) => one.getAttribute('aria-label'))"
_FOCUSED = "document.activeElement?.getAttribute('aria-label')"


async def _until_versions(page: ChatPage, *labels: str) -> None:
    wanted = ",".join(f'"{label}"' for label in labels)
    await page.tab.until(f"JSON.stringify({_LABELS}) === '[{wanted}]'")


async def test_versions_are_switched_by_keyboard_and_stay_after_a_reload(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    assert await page.tab.js(_LABELS) == []
    await page.send("/stream 6")
    await page.until_idle(2)
    before = await page.messages()
    await page.edit("article.user", "0")
    await page.until_text("48 49")
    await page.until_idle()
    await _until_versions(page, "Version 2 of 2")
    await page.tab.click('[aria-label="Previous version"]')
    await _until_versions(page, "Version 1 of 2")
    await page.until_idle(2)
    assert await page.messages() == before, "with all that followed it"
    await page.reload()
    await page.until_idle(2)
    await _until_versions(page, "Version 1 of 2")
    assert await page.messages() == before
    await page.tab.js("document.querySelector('[aria-label=\"Next version\"]').focus()")
    await page.tab.press("Enter")
    await _until_versions(page, "Version 2 of 2")
    await page.until_idle()
    assert await page.messages() == [("user", "/stream 50"), ("assistant", stream_text(50))]
    await page.tab.shows(_FOCUSED, "Next version")  # the keyboard is where it was
    assert await page.serious_faults() == []


async def test_an_address_leads_to_a_message_on_another_branch(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    first = await page.tab.js("document.querySelector('article.answer').dataset.message")
    await page.edit("article.user", "0")
    await page.until_text("48 49")
    await page.until_idle()
    await _until_versions(page, "Version 2 of 2")
    await page.go(f"{await page.path()}?message={first}")
    await _until_versions(page, "Version 1 of 2")
    await page.tab.until(f"document.activeElement.dataset.message === '{first}' && location.search === ''")
    await page.tab.shows("document.querySelector('[role=alert]')", None)


async def test_another_answer_is_a_version_and_other_tabs_follow_a_switch(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5")
    await page.until_idle()
    first = await page.tab.js("document.querySelector('article.answer').dataset.message")
    await page.tab.click('[aria-label="Answer again"]')
    await _until_versions(page, "Version 2 of 2")
    await page.until_idle()
    other = await open_page(user=page.user)
    await other.go(await page.path())
    await _until_versions(other, "Version 2 of 2")
    await page.tab.click('[aria-label="Previous version"]')
    await _until_versions(page, "Version 1 of 2")
    await _until_versions(other, "Version 1 of 2")
    await other.tab.shows("document.querySelector('article.answer').dataset.message", first)
    await page.tab.shows(_FOCUSED, "Next version")  # the other answer is another element
