"""Tests of agents on the page: long work across a reload, questions, goals, failures, the library."""

from __future__ import annotations

import json

import pytest

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import OpenPage
from tests.e2e.agents import GOAL

_SLOW = f"{GOAL} [generator: 202-webhook delay=2 progress=3]"


def _call(tool: str, **arguments: object) -> str:
    return f"/tool {tool} {json.dumps(arguments)}"


def _create(description: str, **more: object) -> str:
    return _call("create_agent", description=description, **more)


async def _until_saved(page: ChatPage) -> None:
    await page.tab.until(
        "document.querySelectorAll('.tool').length === 1 && document.querySelector('.tool.done') !== null"
    )
    await page.until_idle(2)
    await page.tab.until("document.querySelector('.tool').innerText.includes('is in your library')")


async def test_an_agent_is_created_across_a_reload_and_the_conversation_continues(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send(_create(_SLOW))
    await page.tab.until("document.querySelector('.tool .bar') !== null")
    await page.reload()
    await page.tab.until("document.querySelector('.tool.running .bar') !== null")
    other = await open_page(page.user, await page.path())
    await _until_saved(page)
    await _until_saved(other)
    assert await page.messages() == await other.messages()
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
    await page.send(_create(f"{GOAL} [generator: late 60]"))
    await page.until_idle()
    await page.tab.click(".working button")
    await page.tab.until("document.querySelector('.tool.running') === null")
    await page.tab.shows("document.querySelectorAll('.tool').length", 1)


async def test_clarifying_questions_are_answered_in_a_form(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send(_create("Ask me what to do with my mails and then do it"))
    await page.tab.until("document.querySelector('.questions input') !== null")
    await page.until_idle()
    count = await page.tab.js("document.querySelectorAll('.questions input').length")
    for n in range(1, count + 1):
        await page.tab.type(f".questions p:has(input):nth-of-type({n + 1}) input", "every day at 9")
    await page.tab.click(".questions button")
    await page.tab.until("document.querySelectorAll('article.user').length === 2")
    assert "every day at 9" in (await page.messages())[2][1]
    form = "[...document.querySelectorAll('.questions')[0].querySelectorAll('input, button')]"
    for _ in ("as it was answered", "as it was kept"):
        await page.until_idle(2)
        await page.tab.until(f"{form}.every((one) => one.disabled)")
        await page.tab.shows(f"{form}.slice(0, -1).map((one) => one.value)", ["every day at 9"] * count)
        await page.reload()


async def test_a_suggested_goal_is_taken_with_one_click(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send(_create("agent"))
    await page.tab.until("document.querySelector('.tool blockquote') !== null")
    await page.until_idle()
    goal = await page.tab.js("document.querySelector('.tool blockquote').textContent")
    await page.tab.click(".tool button.primary")
    await page.tab.until("document.querySelectorAll('article.user').length === 2")
    assert goal in (await page.messages())[2][1]
    await page.until_idle(3)  # the agent is saved
    await page.reload()
    await page.until_idle(3)
    await page.tab.until("document.querySelector('.tool blockquote ~ p button').disabled")


async def test_a_preview_shows_its_graph(open_page: OpenPage) -> None:
    page = await open_page()
    await page.tab.size(1_200, 800)
    await page.send(_create(f"{GOAL} [generator: 200]", save=False))
    await page.tab.until("document.querySelectorAll('.tool .graph rect').length > 1")
    ends = "Math.max(...[...document.querySelectorAll('.graph rect')].map((one) => one.getBoundingClientRect().right))"
    await page.tab.until(f"{ends} <= document.querySelector('.graph').getBoundingClientRect().right")


_FAILS = "every day at 9 [generator: 200 fail error_type=patch_error]"


@pytest.mark.parametrize(
    ("tool", "arguments", "again"),
    [
        ("create_agent", {"description": _FAILS}, "Create an agent that does this"),
        ("edit_agent", {"changes": "at 9", "agent_id": "none"}, "Change the agent none like this"),
        (
            "customize_agent",
            {"modifications": _FAILS, "agent_id": "acme/mail-digest"},
            "Customize the template acme/mail-digest like this",
        ),
    ],
)
async def test_a_failed_request_can_be_retried_or_simplified_once(
    open_page: OpenPage, tool: str, arguments: dict[str, str], again: str
) -> None:
    page = await open_page()
    description = next(iter(arguments.values()))
    await page.send(_call(tool, **arguments))
    await page.until_idle()
    for answers, (button, how) in enumerate([("Try again", ""), ("Simplify", " in as few steps as possible")], start=2):
        await page.tab.click(f"article:last-child .tool.failed button::-p-text({button})")
        await page.until_idle(answers)
        assert (await page.messages())[-2] == ("user", f"{again}{how}: {description}")
        await page.tab.until(f"document.querySelectorAll('.tool.failed').length === {answers}")
        await page.tab.shows("document.querySelectorAll('.tool.failed button:disabled').length", 2 * answers - 2)
        await page.reload()
        await page.until_idle(answers)
        await page.tab.shows("document.querySelectorAll('.tool.failed button:disabled').length", 2 * answers - 2)


async def test_answers_to_questions_about_a_change_go_to_that_change(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send(_create(f"{GOAL} [generator: 200]"))
    await page.until_idle()
    link = await page.tab.js("document.querySelector('.tool .button.primary').getAttribute('href')")
    agent = link.rpartition("/")[2]
    changes = "every day at 9 [generator: 200 clarify]"
    await page.send(_call("edit_agent", agent_id=agent, changes=changes))
    await page.tab.until("document.querySelector('.questions input') !== null")
    await page.until_idle(2)
    for n in range(1, 1 + await page.tab.js("document.querySelectorAll('.questions input').length")):
        await page.tab.type(f".questions p:has(input):nth-of-type({n + 1}) input", "at noon")
    await page.tab.click(".questions button")
    await page.until_idle(3)
    text = (await page.messages())[-2][1]
    assert text.startswith(f"Change the agent {agent} like this: {changes}")
    assert "at noon" in text
    await page.tab.until("[...document.querySelectorAll('.tool')].at(-1).ariaLabel.startsWith('Edit agent')")


async def test_a_card_is_usable_again_after_its_message_was_withdrawn_or_edited(open_page: OpenPage) -> None:
    page = await open_page()
    again = ".tool.failed button::-p-text(Try again)"
    used = "document.querySelectorAll('.tool.failed button:disabled').length"
    await page.send(_create(_FAILS))
    await page.until_idle()
    await page.send("/stream 5000 200")
    await page.until_text("0 1")
    await page.tab.click(again)
    await page.tab.until(f"document.querySelectorAll('.queued .link').length === 1 && {used} === 2")
    await page.tab.click(".queued .link")
    await page.tab.until(f"document.querySelector('.queued') === null && {used} === 0")
    await page.tab.click('[aria-label="Stop"]')
    await page.until_idle(2)
    await page.tab.click(again)
    await page.until_idle(3)
    await page.tab.shows(used, 2)
    await page.tab.js("[...document.querySelectorAll('article.user')].at(-1).id = 'changed'")
    await page.edit("#changed", " and so on")
    await page.tab.until(f"{used} === 0")
