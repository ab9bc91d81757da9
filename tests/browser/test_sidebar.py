"""The list of conversations: searched, renamed, deleted and brought back."""

from __future__ import annotations

import asyncio

import asyncpg

from tests.browser.chat_page import STOP, ChatPage, spoken
from tests.browser.conftest import OpenPage
from tests.e2e.stack import Stack, bearer, new_session, new_user
from tests.speed import limit


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
    await page.rename(".sidebar li.current", "Zebra")
    await other.tab.until("document.querySelector('.sidebar nav').innerText.includes('Zebra')")
    await other.tab.type('[aria-label="Search conversations"]', "zeb")
    await other.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    assert await other.titles() == ["Zebra"]


_GROUPS = """[...document.querySelectorAll('.sidebar section')].map(
    (group) => [...group.querySelectorAll('h2, li a')].map((line) => line.innerText))"""


async def _fill(home: Stack, user: str, ages: dict[str, int]) -> None:
    """Conversations by title, each that many hours old."""
    connection = await asyncpg.connect(home.servers.postgres)
    try:
        await connection.executemany(
            "INSERT INTO sessions (id, user_id, title, updated_at)"
            " VALUES ($1, $2, $3, now() - make_interval(hours => $4))",
            [(new_session(), user, title, hours) for title, hours in ages.items()],
        )
    finally:
        await connection.close()


async def test_conversations_stand_under_the_time_of_their_last_message(open_page: OpenPage, home: Stack) -> None:
    user, day = new_user(), 24
    await _fill(home, user, {"now": 0, "yesterday": day, "days": 3 * day, "weeks": 14 * day, "months": 90 * day})
    page = await open_page(user)
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 5")
    assert await page.tab.js(_GROUPS) == [
        ["Today", "now"],
        ["Yesterday", "yesterday"],
        ["Past week", "days"],
        ["Past month", "weeks"],
        ["Older", "months"],
    ]


async def test_old_conversations_are_shown_when_asked_for_and_found_without(open_page: OpenPage, home: Stack) -> None:
    user = new_user()
    await _fill(home, user, {f"Talk {n}": n for n in range(1, 121)})
    page = await open_page(user)
    for shown in (50, 100, 120):
        await page.tab.until(f"document.querySelectorAll('.sidebar li').length === {shown}")
        if shown < 120:
            await page.tab.click(".sidebar nav > button")
    assert await page.titles() == [f"Talk {n}" for n in range(1, 121)]
    assert await page.tab.js("document.querySelector('.sidebar nav > button')") is None
    search = '[aria-label="Search conversations"]'
    await page.tab.type(search, "talk 119")
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await page.tab.type(search, "9")
    await page.tab.until("document.querySelector('.sidebar .empty')?.innerText === 'No conversation has that title.'")


async def test_what_was_deleted_is_gone_when_its_user_signs_out_at_once(open_page: OpenPage, home: Stack) -> None:
    page = await open_page(known=False)
    user = new_user()
    await page.tab.js(f"localStorage.setItem('copilot.token', '{bearer(user)['authorization'].split()[1]}')")
    await page.go("/")
    await page.say("/stream 3")
    await page.until_idle()
    await page.tab.hover(".sidebar li.current")
    await page.tab.click('.sidebar li.current [aria-label^="Delete"]')
    await page.tab.until("document.querySelector('.undo') !== null")
    await page.tab.click(".sidebar .bottom ::-p-text(Sign out)")
    async with home.client(user) as client, asyncio.timeout(limit(20)):
        while (await client.get("/api/chat/sessions")).json()["total"] > 0:
            await asyncio.sleep(0.05)


async def test_a_tab_that_is_opened_sees_what_is_being_answered(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say("/stream 5000 20")
    await page.until_text("5 6")
    other = await open_page(page.user, "/library")
    await other.tab.until("document.querySelector('.sidebar .pulse') !== null")
    await page.tab.click(STOP)
    await other.tab.until("document.querySelector('.sidebar .pulse') === null")
