"""Tests of the page with the keyboard alone, on a small screen, with other colours, and without motion."""

from __future__ import annotations

import asyncpg

from tests.browser.chat_page import FIELD
from tests.browser.conftest import OpenPage
from tests.e2e.stack import Stack

STEADY = 0.1
"""The largest cumulative layout shift that web.dev calls good."""
_WATCH = """(() => {
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.tabIndex >= 0 && !e.disabled;
  const all = [...document.querySelectorAll('a[href], button, input, textarea, summary, [tabindex]')].filter(seen);
  window.missed = new Set(all);
  document.addEventListener('focusin', ({ target }) => window.missed.delete(target));
  return all.length;
})()"""
_WIDER = """[document.documentElement, ...document.querySelectorAll('.scroll, .sidebar, .sidebar nav')]
  .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.className || box.tagName)"""


async def test_everything_can_be_reached_and_opened_with_the_keyboard(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send('/reason hm\n/stream 5\n/tool find_library_agent {"query": "mail"}')
    await page.until_idle()
    path = await page.path()
    await page.tab.until("document.querySelector('.sidebar li') !== null")
    reachable = await page.tab.js(_WATCH)
    assert reachable > 12
    for _ in range(reachable + 3):
        await page.tab.press("Tab")
    assert await page.tab.js("[...window.missed].map((missed) => missed.outerHTML.slice(0, 200))") == []

    await page.tab.js("document.querySelector('.sidebar .new').focus()")
    await page.tab.press("Enter")
    await page.tab.until("location.pathname === '/'")
    await page.tab.js("document.querySelector('.search input').focus()")
    await page.tab.press("Tab")
    await page.tab.press("Enter")
    await page.tab.until(f"location.pathname === '{path}'")
    await page.until_idle()


async def test_the_first_tab_stop_skips_the_sidebar(open_page: OpenPage) -> None:
    page = await open_page()
    await page.tab.js("document.querySelector('.sidebar .brand').focus()")
    await page.tab.chord("Shift", "Tab")
    await page.tab.until(
        "document.activeElement.matches('.skip') && document.activeElement.getBoundingClientRect().top >= 0"
    )
    await page.tab.press("Enter")
    await page.tab.press("Tab")
    await page.tab.until("document.activeElement.closest('main') !== null")
    await page.send("/stream 5")
    await page.until_idle()


async def test_the_chosen_colours_apply_before_the_first_paint(open_page: OpenPage) -> None:
    page = await open_page(scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = await page.tab.js(ground)
    await page.tab.click('[aria-label="Dark colours"]')
    dark = await page.tab.js(ground)
    assert dark != light
    await page.tab.before(f"""window.painted = [];
        const look = () => {{ if (document.body) painted.push({ground}); requestAnimationFrame(look); }};
        requestAnimationFrame(look);""")
    await page.reload()
    await page.tab.until("document.querySelector('[aria-label=\"Light colours\"]') !== null && painted.length > 3")
    await page.tab.shows("[...new Set(painted)]", [dark])
    await page.tab.click('[aria-label="Light colours"]')
    await page.tab.until(f"{ground} === '{light}'")


async def test_nothing_is_animated_for_a_user_who_prefers_reduced_motion(open_page: OpenPage) -> None:
    for still in (False, True):
        page = await open_page(still=still)
        await page.send("/stream 5000 50")
        await page.tab.until("document.querySelector('.sidebar .pulse') !== null")
        assert (await page.tab.js("document.getAnimations().length") == 0) == still
        await page.tab.click('[aria-label="Stop"]')
        await page.until_idle()


async def test_long_words_and_names_make_nothing_wider_than_a_phone(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page(width=360, height=640)
    long = "x" * 600
    await page.send(f'/reason {long}\n/say {long} `{long}`\n/tool find_library_agent {{"query": "{long[:200]}"}}')
    await page.until_idle()
    session = await page.session()
    connection = await asyncpg.connect(stack.servers.postgres)
    try:
        await connection.execute("UPDATE sessions SET title = $1 WHERE id = $2", long[:200], session)
        await connection.execute(
            "INSERT INTO library_agents (id, user_id, graph_id, name, description, version)"
            " VALUES ($1, $2, $1, $3, $3, 1)", session, page.user, long,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO agent_versions (library_agent_id, version, graph) VALUES ($1, 1, $2)",
            session, f'{{"nodes": [{{"id": "{long}"}}], "links": []}}',
        )  # fmt: skip
    finally:
        await connection.close()
    await page.reload()
    await page.until_idle()
    await page.tab.js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    await page.tab.type(FIELD, long)
    assert await page.tab.js(_WIDER) == []
    await page.tab.click('[aria-label="Open the sidebar"]')
    await page.tab.until("document.querySelector('.sidebar li a')?.innerText.startsWith('xxx')")
    assert await page.tab.js(_WIDER) == []
    await page.go("/library")
    await page.tab.until("document.querySelector('.agents li') !== null")
    assert await page.tab.js(_WIDER) == []
    await page.tab.click(".agents a")
    await page.tab.until("document.querySelector('.versions li') !== null")
    assert await page.tab.js(_WIDER) == []


async def test_the_layout_does_not_shift_while_a_conversation_opens_and_grows(open_page: OpenPage) -> None:
    writer = await open_page()
    await writer.send("/reason hm\n/stream 300")
    await writer.until_idle()
    page = await open_page(writer.user, "/library")
    await page.tab.before("""window.moved = 0;
        new PerformanceObserver((list) => list.getEntries().forEach((one) => { window.moved += one.value; }))
            .observe({ type: "layout-shift", buffered: true });""")
    await page.go(await writer.path())
    await page.until_idle()
    await writer.send("/stream 200 10")
    await page.until_text("5 6")
    await page.until_idle(2)
    moved = await page.tab.js("window.moved")
    assert moved < STEADY
