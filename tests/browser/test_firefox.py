"""The page's main path in Firefox ESR: send, stream, reload in the middle of an answer, stop, a diagram."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.browser.chat_page import STOP, ChatPage, stream_text
from tests.browser.driving import Browser, open_browser
from tests.e2e.chat_api import converse, open_session
from tests.e2e.sse import PACE
from tests.e2e.stack import Stack, bearer, new_user
from tests.servers.firefox_install import HINT, find


@pytest.fixture(scope="module")
async def firefox() -> AsyncIterator[Browser]:
    program = find()
    if program is None:
        pytest.skip(HINT)
    async with open_browser(program) as browser:
        yield browser


async def test_an_answer_streams_survives_a_reload_and_is_stopped_in_firefox(firefox: Browser, stack: Stack) -> None:
    user = new_user()
    tab = await firefox.open(user, bearer(user)["authorization"].removeprefix("Bearer "))
    page = ChatPage(tab, user, stack.base)
    await page.go("/")
    await page.send("/stream 3")
    await page.until_idle()
    assert await page.answers() == [stream_text(3)]
    await page.send(f"/stream 5000 {PACE}")
    await page.until_text("2 3")
    await page.reload()
    await page.until_text("4 5")
    shown = (await page.answers())[-1]
    assert stream_text(5000).startswith(shown.strip())
    await page.tab.click(STOP)
    await page.until_idle(2)
    await page.tab.until("document.querySelector('.thread').innerText.includes('Stopped')")
    async with stack.client(user) as client:
        session = await open_session(client)
        await converse(client, session, "/say ```mermaid\rflowchart LR\r  A[Start] --> B[End]\r```")
    await page.go(f"/c/{session}")
    await page.tab.until("document.querySelector('.diagram img')?.naturalWidth > 50")
    assert await tab.errors() == []
    await tab.close()
