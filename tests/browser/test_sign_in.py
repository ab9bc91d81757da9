"""Tests of signing in and out on a server that requires tokens, and of rejected tokens."""

from __future__ import annotations

import asyncio

from tests.browser.chat_page import FIELD, ChatPage, stream_text
from tests.browser.conftest import OpenPage
from tests.e2e.stack import bearer, new_user

_TOKEN = "dialog[open] input"


def _button(text: str) -> str:
    return f".sidebar .bottom ::-p-text({text})"


async def _sign_in(page: ChatPage, token: str) -> None:
    await page.tab.type(_TOKEN, token)
    await page.tab.press("Enter")


async def test_a_user_signs_in_and_out_and_sees_only_their_own_conversations(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    user = new_user()
    await page.tab.click(_button("Sign in"))
    assert await page.serious_faults() == []
    await _sign_in(page, bearer(user)["authorization"])
    await page.tab.until("[...document.querySelectorAll('.bottom button')].some((b) => b.innerText === 'Sign out')")
    await page.send("/stream 5")
    await page.until_idle()
    other = await open_page(user)
    await other.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await page.tab.click(_button("Sign out"))
    await page.tab.until("[...document.querySelectorAll('.bottom button')].some((b) => b.innerText === 'Sign in')")
    await page.tab.until("document.querySelector('.sidebar .empty') !== null")


async def test_a_rejected_token_is_reported_at_once_and_the_draft_stays(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    await page.tab.type(FIELD, "hello")
    await page.tab.click(_button("Sign in"))
    await _sign_in(page, "no-token")
    await page.tab.until("document.querySelector('dialog[open] h2')?.innerText.includes('rejected')")
    assert await page.serious_faults() == []
    await page.tab.click("dialog ::-p-text(Continue without signing in)")
    await page.tab.until("document.querySelector('dialog[open]') === null")
    await page.tab.until(f"document.querySelector('{FIELD}')?.value === 'hello'")


async def test_an_anonymous_tab_follows_another_tab_from_the_first_answer_on(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    await page.send("/stream 50 40")
    await page.until_text("5 6")
    other = await open_page(page.user, await page.path(), known=False)
    await other.until_text("10 11")
    await other.send("/stream 7")
    await asyncio.gather(page.until_idle(2), other.until_idle(2))
    assert await page.messages() == await other.messages()
    assert await page.answers() == [stream_text(50), stream_text(7)]


async def test_an_anonymous_user_sees_a_new_title_in_the_list(open_page: OpenPage) -> None:
    page = await open_page(known=False)
    await page.send("/stream 5")
    await page.until_idle()
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await page.rename(".sidebar li", "Zebra")
    await page.tab.click(".sidebar .new")
    await page.send("/stream 6")
    await page.until_idle()
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 2")
    await page.tab.until("document.querySelector('.sidebar nav').innerText.includes('Zebra')")
