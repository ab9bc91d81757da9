"""Agents on the page: long work that survives a reload, questions, goals, failures, the library."""

from __future__ import annotations

import json

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import OpenPage
from tests.e2e.agents import GOAL

_SLOW = f"{GOAL} [generator: 202-webhook delay=2 progress=3]"


def _create(description: str, **more: object) -> str:
    return f"/tool create_agent {json.dumps({'description': description, **more})}"


async def _until_saved(page: ChatPage) -> None:
    await page.tab.until(
        "document.querySelectorAll('.tool').length === 1 && document.querySelector('.tool.done') !== null"
    )
    await page.until_idle(2)
    assert await page.tab.js("document.querySelector('.tool').innerText.includes('is in your library')")


async def test_an_agent_is_made_while_the_page_is_reloaded_and_the_conversation_goes_on(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say(_create(_SLOW))
    await page.tab.until("document.querySelector('.tool .bar') !== null")
    await page.reload()
    await page.tab.until("document.querySelector('.tool.running .bar') !== null")
    other = await open_page(page.user, await page.path())
    await _until_saved(page)
    await _until_saved(other)
    assert await page.said() == await other.said()
    assert (await page.answers())[-1].startswith("The work of create_agent has ended")
    assert await page.serious_faults() == []
    await page.tab.click(".tool .button.primary")
    await page.tab.until("document.querySelectorAll('.graph rect').length > 1")
    assert (await page.path()).startswith("/library/agents/")
    assert await page.serious_faults() == []
    await page.tab.click(".crumb a")
    await page.tab.until("document.querySelectorAll('.agents li').length === 1")


async def test_long_work_can_be_cancelled(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say(_create(f"{GOAL} [generator: late 60]"))
    await page.until_idle()
    await page.tab.click(".working button")
    await page.tab.until("document.querySelector('.tool.running') === null")
    assert await page.tab.js("document.querySelectorAll('.tool').length") == 1


async def test_clarifying_questions_are_answered_in_a_form(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say(_create("Ask me what to do with my mails and then do it"))
    await page.tab.until("document.querySelector('.questions input') !== null")
    await page.until_idle()
    count = await page.tab.js("document.querySelectorAll('.questions input').length")
    for n in range(1, count + 1):
        await page.tab.type(f".questions p:has(input):nth-of-type({n + 1}) input", "every day at 9")
    await page.tab.click(".questions button")
    await page.tab.until("document.querySelectorAll('article.user').length === 2")
    assert "every day at 9" in (await page.said())[2][1]


async def test_a_suggested_goal_is_taken_with_one_click(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say(_create("agent"))
    await page.tab.until("document.querySelector('.tool blockquote') !== null")
    await page.until_idle()
    goal = await page.tab.js("document.querySelector('.tool blockquote').textContent")
    await page.tab.click(".tool button.primary")
    await page.tab.until("document.querySelectorAll('article.user').length === 2")
    assert goal in (await page.said())[2][1]


async def test_a_preview_is_drawn_and_a_failure_offers_another_try(open_page: OpenPage) -> None:
    page = await open_page()
    await page.say(_create(f"{GOAL} [generator: 200]", save=False))
    await page.tab.until("document.querySelectorAll('.tool .graph rect').length > 1")
    await page.until_idle()
    await page.say(_create(f"{GOAL} [generator: 200 fail error_type=patch_error]"))
    await page.tab.until("document.querySelector('.tool.failed') !== null")
    await page.until_idle(2)
    offered = await page.tab.js("[...document.querySelectorAll('.tool.failed button')].map((b) => b.innerText)")
    assert offered == ["Try again", "Simplify"]
