"""Tests of the list of conversations: searching, renaming, deleting and undoing a deletion."""

from __future__ import annotations

import asyncio

import asyncpg

from tests.browser.chat_page import STOP, ChatPage, stream_text
from tests.browser.conftest import OpenPage
from tests.e2e.stack import Stack, bearer, new_session, new_user
from tests.speed import limit


async def _two_sessions(page: ChatPage) -> None:
    for n, text in enumerate(("/stream 3", "/stream 4"), start=1):
        await page.tab.click(".sidebar .new")
        await page.send(text)
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
    assert await page.answers() == [stream_text(4)]
    await page.tab.hover(".sidebar li.current")
    await page.tab.click('.sidebar li.current [aria-label^="Delete"]')
    await page.tab.until("document.querySelector('.undo') !== null")
    other = await open_page(page.user)  # leaving the page does not undo the deletion
    await page.go("/library")
    await other.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await other.go(address)
    await other.tab.until("document.querySelector('h1')?.innerText === 'Conversation not found'")


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


async def _fill(stack: Stack, user: str, ages: dict[str, int]) -> None:
    """Creates conversations. `ages` holds the age of each in hours, by title."""
    connection = await asyncpg.connect(stack.servers.postgres)
    try:
        await connection.executemany(
            "INSERT INTO sessions (id, user_id, title, updated_at)"
            " VALUES ($1, $2, $3, now() - make_interval(hours => $4))",
            [(new_session(), user, title, hours) for title, hours in ages.items()],
        )
    finally:
        await connection.close()


async def test_conversations_are_grouped_by_the_time_of_their_last_message(open_page: OpenPage, stack: Stack) -> None:
    user, day = new_user(), 24
    await _fill(stack, user, {"now": 0, "yesterday": day, "days": 3 * day, "weeks": 14 * day, "months": 90 * day})
    page = await open_page(user)
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 5")
    await page.tab.shows(
        _GROUPS,
        [
            ["Today", "now"],
            ["Yesterday", "yesterday"],
            ["Past week", "days"],
            ["Past month", "weeks"],
            ["Older", "months"],
        ],
    )


async def test_old_conversations_can_be_listed_and_searched(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    await _fill(stack, user, {f"Talk {n}": n for n in range(1, 121)})
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


async def test_a_deletion_holds_when_the_user_signs_out_at_once(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page(known=False)
    user = new_user()
    await page.tab.js(f"localStorage.setItem('copilot.token', '{bearer(user)['authorization'].split()[1]}')")
    await page.go("/")
    await page.send("/stream 3")
    await page.until_idle()
    await page.tab.hover(".sidebar li.current")
    await page.tab.click('.sidebar li.current [aria-label^="Delete"]')
    await page.tab.until("document.querySelector('.undo') !== null")
    await page.tab.click(".sidebar .bottom ::-p-text(Sign out)")
    async with stack.client(user) as client, asyncio.timeout(limit(20)):
        while (await client.get("/api/chat/sessions")).json()["total"] > 0:
            await asyncio.sleep(0.05)


async def test_a_new_tab_shows_which_conversations_are_being_answered(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/stream 5000 100")
    await page.until_text("5 6")
    other = await open_page(page.user, "/library")
    await other.tab.until("document.querySelector('.sidebar .pulse') !== null")
    await page.tab.click(STOP)
    await other.tab.until("document.querySelector('.sidebar .pulse') === null")


async def test_words_of_messages_are_found_and_lead_to_their_conversation(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page()
    await page.send("/say The albatross sleeps in the air")
    await page.until_idle()
    address = await page.path()
    async with stack.client(page.user) as http, asyncio.timeout(limit(30)):
        while len((await http.get("/api/chat/search", params={"q": "albatross"})).json()["results"]) < 2:
            await asyncio.sleep(0.1)  # between two looks of a bounded wait: the executor adds messages after the turn
    await page.tab.click(".sidebar .new")
    await page.tab.type('[aria-label="Search conversations"]', "albatross sleep")
    marks = "[...document.querySelectorAll('.hits mark')].map((mark) => mark.innerText).join()"
    await page.tab.until(f"{marks} === 'albatross,sleeps,albatross,sleeps'")
    await page.tab.click(".hits a")
    await page.tab.until(f"location.pathname === '{address}'")
    await page.tab.until("location.search === ''")
    await page.until_idle()
    assert await page.answers() == ["The albatross sleeps in the air"]


_MENU = '.sidebar li:has(a[title="{}"]) [aria-label^="More"]'


async def _choose(page: ChatPage, title: str, item: str) -> None:
    """Opens the menu of a conversation in the list, and chooses an item."""
    await page.tab.hover(f'.sidebar li:has(a[title="{title}"])')
    await page.tab.click(_MENU.format(title))
    await page.tab.until("document.querySelector('.menu:popover-open button') !== null")
    place = f"[...document.querySelectorAll('.menu:popover-open button')].map((one) => one.innerText).indexOf('{item}')"
    number = await page.tab.js(place)
    assert number >= 0, await page.tab.js("document.querySelector('.menu:popover-open').innerText")
    await page.tab.click(f".menu:popover-open button:nth-child({number + 1})")


async def test_conversations_are_pinned_and_archived_in_every_tab(open_page: OpenPage, stack: Stack) -> None:
    user, day = new_user(), 24
    await _fill(stack, user, {"new": 14 * day, "old": 90 * day, "done": 15 * day})  # one group at any hour of the day
    page, other = await open_page(user), await open_page(user)
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 3")
    await _choose(page, "old", "Pin")
    await other.tab.shows(_GROUPS, [["Pinned", "old"], ["Past month", "new", "done"]])
    await _choose(page, "done", "Archive")
    await other.tab.shows(_GROUPS, [["Pinned", "old"], ["Past month", "new"]])
    await other.tab.click(".sidebar .under [aria-pressed]")
    await other.tab.shows(_GROUPS, [["Past month", "done"]])
    await _choose(other, "done", "Take out of the archive")
    await page.tab.shows(_GROUPS, [["Pinned", "old"], ["Past month", "new", "done"]])
