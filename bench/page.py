"""The page in a browser: a long conversation opens, a long answer streams.  Usage: python -m bench.page

The main thread's long tasks (over 50 ms) are what a reader feels. Needs chromium and npm, as the tests of the page do.
"""

from __future__ import annotations

import asyncio
import time

from bench.servers import open_servers
from tests.browser.chat_page import ChatPage
from tests.browser.driving import Browser, open_browser
from tests.e2e.stack import Stack, bearer, new_user, open_stack
from tests.e2e.talk import converse, open_session
from tests.servers.chromium_install import HINT, find

TURNS = 1_000
WORDS = 50_000
ITEMS = 700
_WATCH = """(() => { window.late = [];
    new PerformanceObserver((list) => window.late.push(...list.getEntries().map((one) => one.duration)))
        .observe({ type: "longtask" }); return true; })()"""
_LATE = "window.late.splice(0)"


async def _page(browser: Browser, stack: Stack, user: str) -> ChatPage:
    token = bearer(user)["authorization"].removeprefix("Bearer ")
    return ChatPage(await browser.open(user, token), user, stack.base)


def _row(name: str, seconds: float, late: list[float]) -> None:
    share = sum(late) / seconds / 10  # milliseconds of seconds, in per cent
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
        await asyncio.sleep(0.02)  # a wheel that is turned; the whole is bounded by what there is to read
    _row("scroll up to its beginning", time.perf_counter() - begun, await page.tab.js(_LATE))


async def _long_answer(browser: Browser, stack: Stack) -> None:
    page = await _page(browser, stack, new_user())
    await page.go("/")
    await page.tab.js(_WATCH)
    begun = time.perf_counter()
    await page.say(f"/stream {WORDS}")
    await page.until_text(f" {WORDS - 1}", limit=120)
    await page.until_idle()
    _row(f"an answer of {WORDS} words", time.perf_counter() - begun, await page.tab.js(_LATE))


async def _long_list(browser: Browser, stack: Stack) -> None:
    """One block that grows to its end: it is parsed as a whole each time it is shown anew."""
    page = await _page(browser, stack, user := new_user())
    items = "\r".join(f"- the **item** {n} of it" for n in range(ITEMS))  # a command is a line
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
