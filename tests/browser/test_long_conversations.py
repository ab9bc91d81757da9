"""Tests of a conversation that is too long to be rendered as a whole: texts are exact and stay in place."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.browser.chat_page import AT_END, SEEN, stream_text
from tests.browser.conftest import OpenPage, repaired
from tests.e2e.chat_api import converse, open_session
from tests.e2e.stack import Stack, new_user

TURNS = 150
MOST_IN_THE_PAGE = 100
"""Most articles that are rendered at a time. The number depends on their height, in a window of 800 pixels."""

_ARTICLES = "document.querySelectorAll('.thread article').length"
_FIRST = "document.querySelector('.bubble').textContent === '/stream 1'"
_TOP_OF = "document.querySelector('[data-message=\"{}\"]').getBoundingClientRect().top"
_BEING_READ = "[...document.querySelectorAll('.thread article')].find((one) => one.getBoundingClientRect().top > 100)"


@pytest.fixture(scope="module")
async def long_session(shared_stack: Stack) -> tuple[str, str]:
    """The name of a user and the path of their session, with `/stream 1` to `/stream 150` and their answers."""
    user = new_user()
    stack = await repaired(shared_stack)
    async with stack.client(user) as client:
        session = await open_session(client)
        await converse(client, session, *[f"/stream {n}" for n in range(1, TURNS + 1)])
    return user, f"/c/{session}"


async def test_scrolling_shows_each_message_once_in_order_with_few_in_the_page(
    open_page: OpenPage, long_session: tuple[str, str]
) -> None:
    page = await open_page(*long_session)
    await page.until_text(f"{TURNS - 2} {TURNS - 1}")
    await page.tab.until(AT_END)
    await page.tab.until(f"(document.querySelector('.scroll').scrollTop = 0, {_FIRST})")
    read: list[str] = []
    most = 0
    async for messages in page.read_downwards():
        read += messages
        most = max(most, await page.tab.js(_ARTICLES))
    assert read == [text for n in range(1, TURNS + 1) for text in (f"/stream {n}", stream_text(n))]
    assert most < MOST_IN_THE_PAGE
    assert await page.serious_faults() == []


@pytest.mark.parametrize("anchoring", ["auto", "none"])  # none: as in Safari
@pytest.mark.parametrize("top", [0, 700])
async def test_the_text_on_screen_stays_in_place_when_older_messages_load(
    open_page: OpenPage, long_session: tuple[str, str], top: int, anchoring: str
) -> None:
    page = await open_page(*long_session, height=1200)
    await page.until_text(f"{TURNS - 2} {TURNS - 1}")
    await page.tab.js(f"document.querySelector('.scroll').style.overflowAnchor = '{anchoring}'")
    groups = await page.tab.js("document.querySelectorAll('.group').length")
    read, place = await page.tab.js(f"""(async () => {{
        const box = document.querySelector('.scroll');
        const first = document.querySelector('.group'); // older ones may come before it at any time from here on
        box.scrollTop = 1300;
        while (!{SEEN} || !first.firstElementChild)
            await new Promise(requestAnimationFrame);
        box.scrollTop = {top};
        const one = {_BEING_READ};
        return [one.dataset.message, one.getBoundingClientRect().top];
    }})()""")
    await page.tab.until(f"document.querySelectorAll('.group').length > {groups}")
    await page.tab.until("document.querySelector('.group:empty + .group article') !== null")  # those above are loaded
    await page.tab.until(f"Math.abs({_TOP_OF.format(read)} - {place}) < 2")


async def test_scrolling_keeps_what_a_reader_has_begun(open_page: OpenPage, long_session: tuple[str, str]) -> None:
    page = await open_page(*long_session)
    await page.until_text(f"{TURNS - 2} {TURNS - 1}")
    await page.tab.wheel(-6000)
    await page.tab.until(f"{SEEN} !== null && !{AT_END}")
    await page.tab.js(f"({_BEING_READ}).closest('.group').id = 'read'")
    await page.tab.click("#read article.user:nth-last-child(2) [aria-label='Edit message']")
    await page.tab.type("#read .editor textarea", " and more")
    await page.tab.js("document.querySelector('.composer textarea').focus()")
    groups = "document.querySelectorAll('.group:not(:empty)').length"
    await page.tab.wheel(100_000)
    await page.tab.until(f"{AT_END} && {groups} < 6")
    assert (await page.tab.js("document.querySelector('#read textarea').value")).endswith(" and more")


async def test_scrolling_up_while_the_conversation_shrinks_is_not_undone(
    open_page: OpenPage, long_session: tuple[str, str]
) -> None:
    page = await open_page(*long_session)
    await page.until_text(f"{TURNS - 2} {TURNS - 1}")
    place = await page.tab.js("""(async () => {
        const box = document.querySelector('.scroll');
        const above = document.createElement('div');
        const frames = async () => { for (let n = 0; n < 10; n++) await new Promise(requestAnimationFrame); };
        above.style.height = '500px';
        box.prepend(above);
        await frames();
        above.remove();
        box.scrollTop -= 3000;
        await frames();
        return box.scrollHeight - box.clientHeight - box.scrollTop;
    })()""")
    assert place > 2000


async def test_one_small_wheel_step_stops_following_the_end(open_page: OpenPage) -> None:
    page = await open_page(height=500)
    await page.send("/stream 600 1\n/stream 4000 30")
    await page.until_text("599 0 1")
    await page.tab.wheel(-30)
    left = "(b => b.scrollHeight - b.clientHeight - b.scrollTop)(document.querySelector('.scroll'))"
    await page.tab.until(f"{left} > 100")
    await page.tab.until("document.querySelector('[aria-label=\"To the newest message\"]') !== null")
    await page.tab.click('[aria-label="Stop"]')
    await page.until_idle()


_TOP_OF_FOCUS = (
    "document.activeElement.getBoundingClientRect().top - document.querySelector('.scroll').getBoundingClientRect().top"
)


async def answer_id(stack: Stack, user: str, path: str, text: str) -> str:
    """Returns the id of the answer to this message, which may be on an old page."""
    async with stack.client(user) as http:
        before: dict[str, int] = {}
        while True:
            params = {"format": "ui", **before}
            details = (await http.get(f"/api/chat/sessions/{path.rpartition('/')[2]}", params=params)).json()
            messages = details["messages"]
            for asked, answer in pairwise(messages):
                if asked["parts"][0].get("text") == text:
                    found: str = answer["id"]
                    return found
            before = {"before": details["older"]}


async def test_an_address_leads_to_an_old_message_which_is_loaded_marked_and_focused(
    open_page: OpenPage, long_session: tuple[str, str], shared_stack: Stack
) -> None:
    user, path = long_session
    found = await answer_id(shared_stack, user, path, "/stream 5")
    page = await open_page(user, f"{path}?message={found}")
    marked = f"document.activeElement.dataset.message === '{found}'"
    await page.tab.until(marked)
    await page.tab.until("document.activeElement.dataset.found !== undefined")
    await page.tab.until("location.search === ''")
    assert -2 < await page.tab.js(_TOP_OF_FOCUS) < 200
    assert await page.serious_faults() == []
    await page.tab.until("document.activeElement.dataset.found === undefined")
    await page.tab.js("document.querySelector('.to-end').click()")
    await page.tab.until(AT_END)
    await page.tab.js(f"(history.pushState(null, '', '{path}?message={found}'), dispatchEvent(new Event('popstate')))")
    await page.tab.until(f"{marked} && location.search === '' && {_TOP_OF_FOCUS} < 200")
    assert await page.tab.js(f"{_TOP_OF_FOCUS} > -2"), "the same message can be opened again"


async def test_messages_that_could_not_be_loaded_are_told_and_loaded_again(
    open_page: OpenPage, long_session: tuple[str, str], shared_stack: Stack
) -> None:
    user, path = long_session
    found = await answer_id(shared_stack, user, path, "/stream 5")
    page = await open_page(user)
    await page.tab.before(
        "window.refused = true; const sent = window.fetch; window.fetch = (url, more) =>"
        " window.refused && String(url?.url ?? url).includes('before=')"
        " ? Promise.resolve(new Response('{}', {status: 403})) : sent(url, more)"
    )
    await page.go(f"{path}?message={found}")
    await page.tab.until("document.querySelector('[role=alert]')?.textContent.includes('could not be loaded')")
    assert "message=" in await page.tab.url(), "a reload looks for it again"
    await page.tab.js("window.refused = false")
    await page.tab.click("[role=alert] button::-p-text(Try again)")
    await page.tab.until(f"document.activeElement.dataset.message === '{found}'")
    await page.tab.until("location.search === '' && document.querySelector('[role=alert]') === null")


async def test_a_message_that_is_not_shown_here_is_reported(open_page: OpenPage, long_session: tuple[str, str]) -> None:
    user, path = long_session
    page = await open_page(user, f"{path}?message=msg_unknown")
    await page.tab.until("document.querySelector('[role=alert]')?.textContent.includes('not found here')")
    await page.tab.until("location.search === ''")
