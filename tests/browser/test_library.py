"""Tests of the library on the page: many agents, search, versions, and failed requests."""

from __future__ import annotations

import json

import asyncpg

from tests.browser.conftest import OpenPage
from tests.e2e.stack import Stack, new_user

_ROWS = "document.querySelectorAll('.agents li').length"
_MORE = ".sheet button::-p-text(Show more)"


def _graph(id: str, steps: int) -> str:
    nodes = [{"id": f"n{n}", "block_id": f"b{n}", "input_default": {}, "metadata": {}} for n in range(steps)]
    return json.dumps({"id": id, "name": id, "description": "", "nodes": nodes, "links": []})


async def _fill(stack: Stack, user: str, agents: int, versions: int = 1) -> None:
    """Saves `agents` agents, `Agent 1` last. Version N of each has N steps."""
    connection = await asyncpg.connect(stack.servers.postgres)
    try:
        ids = [f"{user}-{n}" for n in range(1, agents + 1)]
        await connection.executemany(
            "INSERT INTO library_agents (id, user_id, graph_id, name, description, version, updated_at)"
            " VALUES ($1, $2, $1, $3, 'Counts', $4, now() - make_interval(mins => $5))",
            [(id, user, f"Agent {n}", versions, n) for n, id in enumerate(ids, start=1)],
        )
        await connection.executemany(
            "INSERT INTO agent_versions (library_agent_id, version, graph) VALUES ($1, $2, $3)",
            [(id, version, _graph(id, version)) for id in ids for version in range(1, versions + 1)],
        )
    finally:
        await connection.close()


async def test_all_agents_can_be_listed_and_searched(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    await _fill(stack, user, 120)
    page = await open_page(user, "/library")
    for rows in (50, 100, 120):
        await page.tab.until(f"{_ROWS} === {rows}")
        if rows < 120:
            await page.tab.click(_MORE)
    await page.tab.shows(
        "[...document.querySelectorAll('.agents strong')].map((name) => name.textContent)",
        [f"Agent {n}" for n in range(1, 121)],
    )
    assert not await page.tab.js("document.querySelector('.sheet').innerText.includes('Show more')")
    await page.tab.type('[aria-label="Search agents"]', "agent 77")
    await page.tab.until(f"{_ROWS} === 1")
    await page.tab.click(".agents a")
    await page.tab.until("document.querySelector('h1').innerText === 'Agent 77'")
    await page.tab.back()
    await page.tab.until(f"{_ROWS} === 1")
    await page.tab.type('[aria-label="Search agents"]', "777")
    await page.tab.until("document.querySelector('.sheet .empty')?.innerText === 'No agent has that name.'")


async def test_a_list_that_cannot_be_loaded_shows_an_error_until_it_can(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    await _fill(stack, user, 1)
    page = await open_page(user, "/library")
    await page.tab.until(f"{_ROWS} === 1")
    await page.tab.offline(True)
    await page.tab.type('[aria-label="Search agents"]', "nothing")
    await page.tab.until("document.querySelector('.sheet .problem') !== null")
    assert not await page.tab.js("document.querySelector('.sheet').innerText.includes('No agent')")
    await page.tab.offline(False)
    await page.tab.click(".sheet .problem button")
    await page.tab.until("document.querySelector('.sheet .empty')?.innerText === 'No agent has that name.'")
    assert await page.tab.js("document.querySelector('.sheet .problem')") is None


async def test_an_older_version_is_shown_with_its_graph_and_marked_as_older(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    await _fill(stack, user, 1, versions=60)
    page = await open_page(user, "/library")
    await page.tab.click(".agents a")
    await page.tab.until("document.querySelectorAll('.graph rect').length === 60")
    await page.tab.until("document.querySelector('.versions [aria-pressed=true]')?.innerText.includes('newest')")
    await page.tab.click(_MORE)
    await page.tab.until("document.querySelectorAll('.versions li').length === 60")
    await page.tab.click(".versions li:last-child button")
    await page.tab.until("document.querySelectorAll('.graph rect').length === 1")
    await page.tab.shows("document.querySelector('.versions [aria-pressed=true] strong').innerText", "Version 1")
    await page.tab.shows(
        "document.querySelector('.graph + .note').innerText", "Version 1, not the newest (60): 1 step, 0 links"
    )
    assert await page.serious_faults() == []


async def test_a_shared_agent_is_copied_by_another_user(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    await _fill(stack, user, 1)
    page, other = await open_page(user, f"/library/agents/{user}-1"), await open_page(at="/library")
    await page.tab.click(".sheet button::-p-text(Share version 1)")
    await page.tab.until("document.querySelector('.sheet').innerText.includes('Everyone here can copy version 1')")
    await other.reload()
    await other.tab.until(f"document.querySelector('.shared li strong')?.innerText === '{user}-1'")
    assert await other.serious_faults() == []
    await other.tab.click(".shared button::-p-text(Copy to my agents)")
    await other.tab.until(f"document.querySelector('h1').innerText === '{user}-1'")
    await page.tab.click(".sheet button::-p-text(Stop sharing)")
    await other.go("/library")
    await other.tab.until(f"{_ROWS} === 1 && document.querySelector('.shared') === null")
    await page.go("/library")
    await page.tab.until(f"{_ROWS} === 1 && document.querySelector('.shared') === null")


async def test_an_agent_is_deleted_after_a_confirmation(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    await _fill(stack, user, 2)
    page = await open_page(user, "/library")
    await page.tab.click(".agents a")
    await page.tab.click(".sheet button::-p-text(Delete)")
    await page.tab.until("document.activeElement.innerText === 'Cancel'")
    await page.tab.press("Enter")
    await page.tab.click(".sheet button::-p-text(Delete)")
    await page.tab.click(".sheet button.danger")
    await page.tab.until(f"{_ROWS} === 1")
    assert await page.path() == "/library"
    await page.reload()
    await page.tab.until(f"{_ROWS} === 1")
    await page.tab.shows("document.querySelector('.agents strong').innerText", "Agent 2")
