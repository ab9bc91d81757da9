"""Measures the page in a browser with a long conversation and long answers. Usage: python -m bench.page

Long tasks of the main thread (over 50 ms) are delays that a reader notices. Needs chromium and npm, as the browser
tests do.
"""

from __future__ import annotations

import asyncio
import time

from bench.servers import open_servers
from tests.browser.chat_page import ChatPage
from tests.browser.driving import Browser, open_browser
from tests.e2e.chat_api import converse, open_session
from tests.e2e.stack import Stack, bearer, new_user, open_stack
from tests.servers.chromium_install import HINT, find

TURNS = 1_000
"""Turns of the long conversation."""
WORDS = 50_000
"""Words of the long answer."""
ITEMS = 700
"""Items of the long list."""
_WATCH = """(() => { window.late = [];
    new PerformanceObserver((list) => window.late.push(...list.getEntries().map((one) => one.duration)))
        .observe({ type: "longtask" }); return true; })()"""
_LATE = "window.late.splice(0)"


async def _page(browser: Browser, stack: Stack, user: str) -> ChatPage:
    token = bearer(user)["authorization"].removeprefix("Bearer ")
    return ChatPage(await browser.open(user, token), user, stack.base)


def _row(name: str, seconds: float, late: list[float]) -> None:
    share = sum(late) / seconds / 10  # milliseconds / seconds, as a percentage
    tasks = f"{len(late)} long tasks, at most {max(late, default=0):.0f} ms, {share:.0f} % of the time"
    print(f"| {name:44} | {seconds:6.2f} s | {tasks} |", flush=True)


async def _long_conversation(browser: Browser, stack: Stack) -> None:
    user = new_user()
    async with stack.client(user) as client:
        session = await open_session(client)
        await converse(client, session, *[f"/stream {words}" for words in (41, *[40] * (TURNS - 1))])
    page = await _page(browser, stack, user)
    await page.tab.before(_WATCH)
    await page.go("/library")
    begun = time.perf_counter()
    await page.go(f"/c/{session}")
    await page.until_text("38 39")
    _row(f"open a session of {2 * TURNS} messages", time.perf_counter() - begun, await page.tab.js(_LATE))
    begun = time.perf_counter()
    while await page.tab.js("document.querySelector('.bubble').textContent") != "/stream 41":
        await page.tab.wheel(-50_000)
        await asyncio.sleep(0.02)  # as a user turns the wheel; ends at the top
    _row("scroll up to its beginning", time.perf_counter() - begun, await page.tab.js(_LATE))


async def _long_answer(browser: Browser, stack: Stack) -> None:
    page = await _page(browser, stack, new_user())
    await page.go("/")
    await page.tab.js(_WATCH)
    begun = time.perf_counter()
    await page.send(f"/stream {WORDS}")
    await page.until_text(f" {WORDS - 1}", limit=120)
    await page.until_idle()
    _row(f"an answer of {WORDS} words", time.perf_counter() - begun, await page.tab.js(_LATE))


async def _long_list(browser: Browser, stack: Stack) -> None:
    """Streams an answer that is one growing block, which is parsed as a whole each time it is rendered."""
    page = await _page(browser, stack, user := new_user())
    items = "\r".join(f"- the **item** {n} of it" for n in range(ITEMS))  # CR keeps the command on one line
    async with stack.client(user) as client:
        session = await open_session(client)
        await page.go(f"/c/{session}")
        await page.tab.js(_WATCH)
        begun = time.perf_counter()
        await converse(client, session, f"/say {items}")
    await page.until_idle()
    await page.tab.until(f"document.querySelectorAll('.prose li').length === {ITEMS}")
    _row(f"an answer that is a list of {ITEMS} items", time.perf_counter() - begun, await page.tab.js(_LATE))


async def main() -> None:
    chromium = find()
    if chromium is None:
        raise SystemExit(HINT)
    async with (
        open_servers() as (servers, folder),
        open_stack(servers, folder) as stack,
        open_browser(chromium) as browser,
    ):
        await _long_answer(browser, stack)
        await _long_list(browser, stack)
        await _long_conversation(browser, stack)


if __name__ == "__main__":
    asyncio.run(main())
