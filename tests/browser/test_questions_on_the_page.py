"""Tests of questions on the page: answered in a card, after a reload, and from another tab; and of tool servers."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.browser.conftest import OpenPage
from tests.browser.driving import Browser
from tests.e2e.agents import open_agent_stack
from tests.e2e.stack import Servers, Stack, bearer
from tests.fakes.asking_mcp_server import LINK
from tests.integration.mcp_bench import CARELESS, HERE
from tests.pictures import picture
from tests.plain_http import http_client
from tests.servers.generator import GeneratorNode
from tests.speed import limit

LIMIT = limit(30)
SHOT = {"name": "shot", "inputSchema": {"type": "object"}}
_PNG = base64.b64encode(picture(width=30, height=20)).decode()
SHOT_RESULT = {"content": [{"type": "image", "mimeType": "image/png", "data": _PNG}]}
_ASKING = "document.querySelector('.ask button') !== null"
_ANSWERED = "document.querySelector('.answer-given')?.textContent"


@pytest.fixture(scope="module")
async def shared_stack(
    browser: Browser,
    postgres_dsn: str,
    redis_dsn: str,
    generator: GeneratorNode,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    """The usual stack, in which calls of one tool need an approval, and a tool server asks the user."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "marks").touch()
    environment = {**HERE, "OLDER": "1", "MARKS": str(folder / "marks")}
    asks = {"command": sys.executable, "args": ["-m", "tests.fakes.asking_mcp_server"], "env": environment}
    shows = {**CARELESS, "env": {**HERE, "TOOLS": json.dumps([SHOT]), "RESULTS": json.dumps({"shot": SHOT_RESULT})}}
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"bank": asks, "cam": shows}}))
    rules = {"TOOL_APPROVAL": "add_understanding=ask", "MCP_SERVERS_FILE": str(folder / "mcp.json")}
    async with open_agent_stack(Servers(postgres_dsn, redis_dsn), generator, folder, **rules) as stack:
        async with http_client(base_url=stack.executors[0].url) as http, asyncio.timeout(LIMIT):
            while not all(one["connected"] for one in (await http.get("/health")).json()["mcp_servers"].values()):
                await asyncio.sleep(0.1)  # between two looks of a bounded wait
        yield stack


def _ask(question: str, **more: Any) -> str:
    return f"/tool ask_user {json.dumps({'question': question, **more})}"


async def test_a_choice_is_made_after_a_reload_and_seen_in_another_tab(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send(_ask("Which colour?", choices=["red", "blue"]))
    await page.tab.until(_ASKING)
    await page.until_idle()
    await page.reload()
    await page.tab.until(_ASKING)
    other = await open_page(page.user, await page.path())
    await other.tab.until(_ASKING)
    assert await page.serious_faults() == []
    await page.tab.click(".ask .choice:nth-of-type(2) input")
    await page.tab.click(".ask [type=submit]")
    for one in (page, other):
        await one.tab.until(f"{_ANSWERED} === 'blue'")
        await one.until_text("The user answered: blue")
        await one.until_idle(2)
    assert await page.messages() == await other.messages()
    await other.reload()
    await other.tab.until(f"{_ANSWERED} === 'blue'")


async def test_a_form_is_filled_in_and_two_questions_are_answered_each_by_itself(open_page: OpenPage) -> None:
    page = await open_page()
    fields = {
        "city": {"type": "string", "title": "City"},
        "people": {"type": "integer"},
        "class": {"type": "string", "enum": ["economy", "business"]},
        "window": {"type": "boolean", "title": "At the window"},
    }
    form = {"type": "object", "properties": fields, "required": ["city", "people"]}
    await page.send(f"{_ask('Where to?', form=form)}\n{_ask('Your name?')}")
    await page.tab.until("document.querySelectorAll('.ask').length === 2")
    await page.until_idle()
    names = "[...document.querySelectorAll('.ask form:has(select) label')].map((one) => one.htmlFor.split('-').at(-1))"
    await page.tab.shows(names, list(fields))
    await page.reload()
    await page.tab.until("document.querySelectorAll('.ask').length === 2")
    await page.tab.shows(names, list(fields))
    await page.tab.type(".ask input[id$=city]", "Rome")
    await page.tab.type(".ask input[id$=people]", "2")
    await page.tab.click(".ask input[id$=window]")
    await page.tab.click(".ask [type=submit]")
    await page.tab.until(f"{_ANSWERED} === 'City: Rome; People: 2; Window: true'")
    await page.until_idle(1)
    await page.tab.type('.ask [aria-label="Your answer"]', "Ada")
    await page.tab.press("Enter")
    await page.until_text("The user answered: ")
    await page.until_idle(2)
    await page.tab.shows("document.querySelectorAll('.answer-given').length", 2)
    await page.reload()
    await page.tab.until(f"{_ANSWERED} === 'City: Rome; People: 2; Window: true'")


async def test_a_question_is_skipped_and_a_message_before_is_answered(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send(_ask("What now?"))
    await page.tab.until(_ASKING)
    await page.until_idle()
    await page.send("/stream 3")
    await page.until_text("0 1 2")
    await page.until_idle(2)
    await page.tab.click(".ask .row button:nth-of-type(2)")
    await page.tab.until(f"{_ANSWERED} === 'Skipped'")
    await page.until_idle(3)


async def test_calls_are_allowed_and_denied_on_their_cards_and_always_is_remembered(open_page: OpenPage) -> None:
    page = await open_page()
    learn = '/tool add_understanding {"user_name": "Ada"}'
    await page.send(f"{learn}\n{learn}")
    await page.tab.until("document.querySelectorAll('.ask').length === 2")
    await page.until_idle()
    await page.reload()
    await page.tab.until("document.querySelectorAll('.ask').length === 2")
    assert await page.serious_faults() == []
    await page.tab.click(".ask .row button:nth-of-type(3)")
    await page.tab.until("document.querySelector('.tool.failed .state')?.textContent === 'Not allowed'")
    await page.tab.click(".ask .row button:nth-of-type(2)")
    await page.tab.until("document.querySelector('.tool.done') !== null")
    await page.until_idle(2)
    await page.send(learn)
    await page.tab.until("document.querySelectorAll('.tool.done').length === 2")
    await page.until_idle(3)


async def test_a_tool_server_asks_with_a_form_while_its_call_waits(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send('/tool bank_book {"days": 3}')
    await page.tab.until(_ASKING)
    assert "bank asks:" in await page.tab.js("document.querySelector('.ask').textContent")
    await page.reload()
    await page.tab.until(_ASKING)
    assert await page.serious_faults() == []
    await page.tab.type(".ask input[id$=people]", "2")
    await page.tab.click(".ask [type=submit]")
    await page.until_text("bank.book has answered")
    await page.tab.until("document.querySelector('.ask') === null")
    await page.until_idle()


async def test_a_tool_server_shows_a_link_that_only_the_user_opens(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/tool bank_sign")
    await page.tab.until(_ASKING)
    link = "document.querySelector('.ask a')"
    assert await page.tab.js(f"[{link}.href, {link}.target, {link}.rel]") == [LINK, "_blank", "noopener noreferrer"]
    assert await page.tab.js("document.querySelector('.ask .url').textContent") == LINK
    await page.tab.click(".ask [type=submit]")
    await page.until_text("bank.sign has answered")
    await page.until_idle(2)


async def test_a_picture_of_a_tool_is_shown_on_its_card_after_a_reload_too(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/tool cam_shot")
    await page.until_idle()
    for _ in range(2):
        await page.tab.until("document.querySelector('.tool .files img')?.naturalWidth === 30")
        assert await page.serious_faults() == []
        await page.reload()


async def test_a_call_that_another_page_carries_out_can_be_answered_on_this_one(
    open_page: OpenPage, stack: Stack
) -> None:
    page = await open_page()
    tool = {"name": "get_place", "parameters": {"type": "object"}}
    headers = bearer(page.user)
    async with http_client(base_url=stack.base, headers=headers) as http:
        session = (await http.post("/api/chat/sessions", json={})).json()["id"]
        for result in ("output", "error"):
            text = "/tool get_place {}"
            body = {"message": text, "page_tools": [tool], "message_id": result}
            assert (await http.post(f"/api/chat/sessions/{session}/stream", json=body)).status_code == 200
    await page.go(f"/c/{session}")
    await page.tab.until("document.querySelectorAll('.ask').length === 2")
    assert await page.serious_faults() == []
    await page.tab.type('.ask [aria-label="The result"]', '{"lat": 1.5}')
    await page.tab.click(".ask [type=submit]")
    await page.tab.until("document.querySelectorAll('.ask').length === 1")
    await page.until_text("The page has done it")
    await page.tab.click(".ask .row button:nth-of-type(2)")
    await page.until_text("The user says that it cannot be done")


async def test_accounts_at_tool_servers_are_listed_and_signed_out(
    open_page: OpenPage, stack: Stack, postgres_dsn: str
) -> None:
    page = await open_page()
    grant = "INSERT INTO tool_server_grants (owner, server, id, sealed, scopes) VALUES ($1, $2, $2, '', 'read write')"
    c = await asyncpg.connect(postgres_dsn)
    try:
        await c.executemany(grant, [(f"user:{page.user}", name) for name in ("docs", "@org/crm")])
    finally:
        await c.close()
    await page.tab.click('.sidebar [aria-label="Instructions"]')
    rows = "[...document.querySelectorAll('dialog li strong')].map((one) => one.textContent)"
    await page.tab.shows(rows, ["@org/crm", "docs"])
    assert await page.serious_faults() == []
    await page.tab.click('dialog [aria-label="Sign out at @org/crm"]')
    await page.tab.shows(rows, ["docs"])
    await page.reload()
    await page.tab.click('.sidebar [aria-label="Instructions"]')
    await page.tab.shows(rows, ["docs"])
