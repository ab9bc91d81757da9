"""The choice of a model on the page: by mouse and keyboard, kept by the conversation, told by the answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.browser.conftest import OpenPage
from tests.browser.driving import Browser
from tests.e2e.agents import open_agent_stack
from tests.e2e.stack import Servers, Stack
from tests.servers.generator import GeneratorNode

MODELS = [
    {"id": "quick", "label": "Quick one", "provider": "scripted", "price": {"input": 1000, "output": 1000},
     "context_tokens": 8_500, "max_output_tokens": 512},
    {"id": "deep", "label": "Deep one", "provider": "scripted", "efforts": ["low", "high"]},
]  # fmt: skip
MODEL, EFFORT = 'select[aria-label="Model"]', 'select[aria-label="Effort"]'
_SHOWN = """[...document.querySelectorAll('.picker select')].map((one) => one.selectedOptions[0].textContent)"""
_SUMMARIES = """[...document.querySelectorAll('article.answer > .summarised')]
    .map((one) => [one.open, one.querySelector('summary').textContent])"""
_BY = "[...document.querySelectorAll('article.answer .by')].map((one) => one.textContent)"


@pytest.fixture(scope="module")
async def shared_stack(
    browser: Browser,
    postgres_dsn: str,
    redis_dsn: str,
    generator: GeneratorNode,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    servers, more = Servers(postgres_dsn, redis_dsn), {"CHAT_PROVIDER": "", "CHAT_MODELS": json.dumps(MODELS)}
    async with open_agent_stack(servers, generator, tmp_path_factory.mktemp("stack"), **more) as stack:
        yield stack


async def test_a_model_is_chosen_by_the_keyboard_and_kept_by_its_conversation(open_page: OpenPage) -> None:
    page = await open_page()
    await page.tab.until(f"{_SHOWN}.length === 1")
    await page.tab.shows(_SHOWN, ["Quick one"])
    await page.send("/stream 2")
    await page.until_idle()
    (by,) = await page.tab.js(_BY)
    assert by.startswith("Quick one · $0.0")
    await page.tab.js(f"document.querySelector('{MODEL}').focus()")
    await page.tab.press("ArrowDown")
    await page.tab.until(f"{_SHOWN}.join() === 'Deep one,Usual effort'")
    await page.tab.press("Tab")
    await page.tab.shows("document.activeElement.getAttribute('aria-label')", "Effort")
    await page.tab.press("End")
    await page.tab.until(f"{_SHOWN}.join() === 'Deep one,Effort: high'")
    assert await page.serious_faults() == []
    await page.reload()
    await page.tab.until(f"{_SHOWN}.join() === 'Deep one,Effort: high'")
    await page.send("/stream 3")
    await page.until_idle(2)
    assert (await page.tab.js(_BY))[1] == "Deep one"
    other = await open_page(page.user, await page.path())
    await other.tab.until(f"{_SHOWN}.join() === 'Deep one,Effort: high'")
    await other.go("/")
    await other.tab.until(f"{_SHOWN}.join() === 'Quick one'")


async def test_a_new_conversation_begins_with_the_model_that_was_chosen_for_it(open_page: OpenPage) -> None:
    page = await open_page()
    await page.tab.until(f"{_SHOWN}.length === 1")
    await page.tab.js(f"document.querySelector('{MODEL}').focus()")
    await page.tab.press("End")
    await page.send("/stream 2000 100")
    await page.until_text("1 ")
    await page.tab.js(f"document.querySelector('{MODEL}').focus()")
    await page.tab.press("Home")
    await page.send("/stream 4")
    await page.tab.until("document.querySelectorAll('.queued').length === 1")
    await page.tab.click('[aria-label="Stop"]')
    await page.until_idle(2)
    assert [text.partition(" · ")[0] for text in await page.tab.js(_BY)] == ["Deep one", "Quick one"]
    await page.tab.click(".sidebar .new")
    await page.tab.until(f"{_SHOWN}.join() === 'Quick one'")


async def test_a_summary_of_earlier_messages_is_shown_where_it_begins_to_count(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send(f"My name is Ada. {'word ' * 440}")
    await page.until_idle()
    for turn in range(2, 12):
        await page.send(f"{turn} {'word ' * 440}")
        await page.until_idle(turn)
        if summaries := await page.tab.js(_SUMMARIES):
            break
    assert summaries == [[False, "Earlier messages were summarised"]]
    await page.tab.click(".summarised summary")
    await page.tab.until("document.querySelector('.summarised .prose').textContent.includes('My name is Ada.')")
    assert (await page.messages())[0][1].startswith("My name is Ada."), "the messages stay"
    assert await page.serious_faults() == []
    await page.reload()
    await page.until_idle(turn)
    assert await page.tab.js(_SUMMARIES) == summaries
