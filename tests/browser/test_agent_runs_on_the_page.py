"""Tests of the cards of the agent platform: missing inputs, the output of a run, blocks, schedules."""

from __future__ import annotations

import json

from examples.agent_platform.blocks.block import block_id
from tests.browser.conftest import OpenPage

_SAVED = "document.querySelector('.tool').innerText.includes('is in your library')"
_OUTPUTS = "[...document.querySelectorAll('.outputs dd')].map((one) => one.innerText)"


async def test_an_agent_asks_for_its_inputs_in_a_form_and_shows_its_output(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("Create an agent that adds two numbers")
    await page.tab.until(f"document.querySelector('.tool.done') !== null && {_SAVED}")
    await page.until_idle(2)
    await page.send("Run it")
    await page.tab.until("document.querySelectorAll('.ask input[type=number]').length === 2")
    await page.until_idle(3)
    assert await page.serious_faults() == []
    for n in (1, 2):
        await page.tab.type(f".ask p:nth-of-type({n}) input", str(n + 1))
    await page.tab.click(".ask [type=submit]")
    await page.tab.until(f"{_OUTPUTS}.join() === '5'")
    assert any("Run the agent" in text for _, text in await page.messages())
    for _ in ("as it was sent", "as it was kept"):
        await page.tab.until("[...document.querySelectorAll('.ask input, .ask button')].every((one) => one.disabled)")
        await page.until_idle(5)
        assert await page.serious_faults() == []
        await page.reload()
    await page.tab.until(f"{_OUTPUTS}.join() === '5'")


async def test_blocks_are_shown_and_run_from_their_card(open_page: OpenPage) -> None:
    page = await open_page()
    arithmetic = json.dumps({"block_id": block_id("Arithmetic")})
    await page.send(f'/tool find_block {{"query": "arithmetic"}}\n/tool run_block {arithmetic}')
    await page.tab.until("document.querySelector('.found li strong')?.innerText === 'Arithmetic'")
    await page.tab.until("document.querySelector('.result select') !== null")
    await page.until_idle()
    assert await page.serious_faults() == []
