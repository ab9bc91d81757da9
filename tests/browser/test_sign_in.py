"""Where the server asks for tokens: who has none can sign in, who has one can sign out, and a bad one is told."""

from __future__ import annotations

import asyncio

from tests.browser.chat_page import FIELD, ChatPage, spoken
from tests.browser.conftest import OpenPage
from tests.e2e.stack import bearer, new_user

_TOKEN = "dialog[open] input"


def _button(text: str) -> str:
    return f".sidebar .bottom ::-p-text({text})"


async def _sign_in(page: ChatPage, token: str) -> None:
    await page.tab.type(_TOKEN, token)
    await page.tab.press("Enter")


async def test_somebody_signs_in_and_out_and_sees_what_is_theirs(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    user = new_user()
    await page.tab.click(_button("Sign in"))
    assert await page.serious_faults() == []
    await _sign_in(page, bearer(user)["authorization"])
    await page.tab.until("[...document.querySelectorAll('.bottom button')].some((b) => b.innerText === 'Sign out')")
    await page.say("/stream 5")
    await page.until_idle()
    other = await open_page(user)
    await other.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await page.tab.click(_button("Sign out"))
    await page.tab.until("[...document.querySelectorAll('.bottom button')].some((b) => b.innerText === 'Sign in')")
    await page.tab.until("document.querySelector('.sidebar .empty') !== null")


async def test_a_token_that_is_not_taken_is_told_at_once_and_the_draft_stays(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    await page.tab.type(FIELD, "hello")
    await page.tab.click(_button("Sign in"))
    await _sign_in(page, "no-token")
    await page.tab.until("document.querySelector('dialog[open] h2')?.innerText.includes('does not take')")
    assert await page.serious_faults() == []
    await page.tab.click("dialog ::-p-text(Go on without)")
    await page.tab.until("document.querySelector('dialog[open]') === null")
    await page.tab.until(f"document.querySelector('{FIELD}')?.value === 'hello'")


async def test_without_a_token_a_conversation_hears_of_its_other_tab_from_its_first_answer(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    await page.say("/stream 200 10")
    await page.until_text("5 6")
    other = await open_page(page.user, await page.path(), known=False)
    await other.until_text("20 21")
    await other.say("/stream 7")
    await asyncio.gather(page.until_idle(2), other.until_idle(2))
    assert await page.said() == await other.said()
    assert await page.answers() == [spoken(200), spoken(7)]


async def test_without_a_token_a_new_title_stands_in_the_list(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    await page.say("/stream 5")
    await page.until_idle()
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await page.rename(".sidebar li", "Zebra")
    await page.tab.click(".sidebar .new")
    await page.say("/stream 6")
    await page.until_idle()
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 2")
    await page.tab.until("document.querySelector('.sidebar nav').innerText.includes('Zebra')")
