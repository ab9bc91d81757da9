"""What the page does with whole conversations and answers: sharing, importing, folders, thumbs, keys, notices."""

from __future__ import annotations

import json

import pytest

from tests.browser.chat_page import FIELD, STOP, ChatPage, stream_text
from tests.browser.conftest import OpenPage
from tests.e2e.chat_api import converse, open_session
from tests.e2e.stack import Stack, bearer, new_user

_ENTRY = ".sidebar li.current"
_DIALOG = "document.querySelector('dialog[open]')"


async def _choose(page: ChatPage, item: str) -> None:
    """Chooses an item of the menu of the current conversation."""
    await page.tab.hover(_ENTRY)
    await page.tab.click(f'{_ENTRY} [aria-label^="More for"]')
    await page.tab.click(f'[role="menuitem"]::-p-text({item})')


async def test_a_shared_conversation_is_read_by_everyone_until_it_is_withdrawn(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/say Some **bold** words")
    await page.until_idle()
    await page.tab.until("document.querySelector('.sidebar li.current') !== null")
    await _choose(page, "Share")
    await page.tab.click("dialog[open] ::-p-text(Make a link)")
    await page.tab.until(f"{_DIALOG}.querySelector('input') !== null")
    assert await page.serious_faults() == []
    address = await page.tab.js(f"{_DIALOG}.querySelector('input').value")
    other = await page.tab.browser.open(new_user())
    await other.go(address)
    await other.until("document.querySelector('.answer strong')?.innerText === 'bold'")
    assert await other.js("document.querySelector('.user .bubble').innerText") == "/say Some **bold** words"
    assert await other.js("document.querySelector('meta[name=robots]').content") == "noindex, nofollow"
    assert await other.axe() == []
    await page.tab.click("dialog[open] ::-p-text(Withdraw the link)")
    await page.tab.until(f"{_DIALOG}.querySelector('input') === null")
    await other.reload()
    await other.until("document.querySelector('[role=alert]')?.innerText.includes('withdrawn')")
    assert await other.errors() == []
    await other.close()


async def test_an_exported_conversation_is_imported_from_its_file(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    async with stack.client(user) as client:
        session = await open_session(client)
        await converse(client, session, "/stream 3")
        document = (await client.get(f"/api/chat/sessions/{session}/export", params={"format": "json"})).text
    page = await open_page()
    drop = """(text) => {
        const data = new DataTransfer();
        data.items.add(new File([text], 'conversation.json', { type: 'application/json' }));
        const input = document.querySelector('[aria-label="Conversation to import"]');
        input.files = data.files;
        input.dispatchEvent(new Event('change', { bubbles: true }));
    }"""
    told = "document.querySelector('.sidebar [role=alert]')"
    await page.tab.js(f"({drop})('not a conversation')")
    await page.tab.until(f"{told}?.innerText.startsWith('“conversation.json” is not a conversation that CoPilot')")
    assert await page.serious_faults() == []
    await page.tab.click(".sidebar [role=alert] [aria-label=Close]")
    await page.tab.until(f"{told} === null")
    await page.tab.js(f"({drop})('{{}}')")
    await page.tab.until(f"{told}?.innerText.includes('is not a conversation')")
    await page.tab.js(f"({drop})({json.dumps(document)})")
    await page.tab.until("location.pathname.startsWith('/c/')")
    await page.until_idle()
    assert await page.answers() == [stream_text(3)]
    assert await page.session() != session
    assert await page.tab.js(f"{told} === null")


async def test_a_conversation_moves_into_a_folder_and_a_failed_export_says_so(open_page: OpenPage) -> None:
    page = await open_page()
    for _ in range(2):
        await page.tab.click(".sidebar .new")
        await page.send("/stream 2")
        await page.until_idle()
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 2")
    await _choose(page, "Move to a folder")
    await page.tab.type('[aria-label="New folder"]', "Work")
    await page.tab.press("Enter")
    await page.tab.until("document.querySelector('[aria-label=Folder]') !== null")
    await page.tab.js(
        """(() => { const list = document.querySelector('[aria-label=Folder]');
        Object.getOwnPropertyDescriptor(HTMLSelectElement.prototype, 'value').set.call(list, list.options[1].value);
        list.dispatchEvent(new Event('change', { bubbles: true })); })()"""
    )
    await page.tab.until("document.querySelectorAll('.sidebar li').length === 1")
    await page.tab.js("window.fetch = () => Promise.reject(new Error('No way to the server'))")
    await _choose(page, "Export as JSON")
    await page.tab.until(f"{_DIALOG}?.querySelector('[role=alert]')?.innerText === 'No way to the server'")
    assert await page.serious_faults() == []


async def test_thumbs_and_their_comment_survive_a_reload(open_page: OpenPage, stack: Stack) -> None:
    page = await open_page()
    await page.send("/stream 2")
    await page.until_idle()
    await page.tab.click('[aria-label="Bad answer"]')
    await page.tab.type('dialog[open] [aria-label="Comment"]', "too short")
    await page.tab.click("dialog[open] .primary")
    await page.tab.until(f"{_DIALOG} === null")
    async with stack.client(page.user) as client:
        kept = {"rating": "down", "comment": "too short"}
        path = f"/api/chat/sessions/{await page.session()}"
        while (await client.get(path, params={"format": "ui"})).json()["messages"][-1]["metadata"].get(
            "feedback"
        ) != kept:
            await page.tab.until("true")
    await page.reload()
    await page.tab.until("document.querySelector('[aria-label=\"Bad answer\"][aria-pressed=true]') !== null")
    await page.tab.click('[aria-label="Bad answer"]')
    await page.tab.until("document.querySelector('[aria-label=\"Bad answer\"][aria-pressed=false]') !== null")


async def test_keys_do_what_buttons_do_and_question_mark_lists_them(open_page: OpenPage) -> None:
    page = await open_page()
    await page.send("/say copied words")
    await page.until_idle()
    await page.tab.chord("Control", "Shift", "KeyC")
    await page.tab.until("document.querySelector('[aria-label=Copied]') !== null")
    assert await page.tab.clipboard() == "copied words"
    await page.tab.chord("Control", "KeyK")
    await page.tab.until("document.activeElement.matches('.search input')")
    await page.tab.chord("Shift", "Escape")
    await page.tab.until(f"document.activeElement.matches('{FIELD}')")
    await page.tab.type(FIELD, "Why?")
    await page.tab.shows(f"document.querySelector('{FIELD}').value", "Why?")
    await page.tab.js("document.activeElement.blur()")
    await page.tab.press("?")
    await page.tab.until(f"{_DIALOG}?.innerText.includes('New conversation')")
    assert await page.serious_faults() == []
    await page.tab.press("Escape")
    await page.tab.until(f"{_DIALOG} === null")
    await page.tab.chord("Control", "Shift", "KeyO")
    await page.tab.until("location.pathname === '/'")
    await page.tab.js("sessionStorage.clear()")
    await page.go("/")
    await page.send("/stream 5000 100")
    await page.until_text("2 3")
    await page.tab.chord("Control", ".")
    await page.tab.until(f"document.querySelector('{STOP}') === null")


async def test_an_answer_that_ends_in_a_hidden_tab_marks_its_title(open_page: OpenPage) -> None:
    page = await open_page()
    hide = "(on) => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => on });"
    await page.tab.js(f"({hide} }})(true)")
    await page.send("/stream 3")
    await page.tab.until("document.title.startsWith('✓ Answered')")
    await page.tab.js(f"({hide} document.dispatchEvent(new Event('visibilitychange')) }})(false)")
    await page.tab.until("!document.title.startsWith('✓')")


MERMAID = """flowchart LR
  A[Start] --> B{Is it?}
  B -->|yes| C["It is"]
  click C href "https://example.org"
  style A fill:#f9f"""


async def test_a_diagram_is_a_picture_that_was_drawn_without_rights(open_page: OpenPage, stack: Stack) -> None:
    answer = f"Look:\n\n```mermaid\n{MERMAID}\n```\n\nAnd wrong:\n\n```mermaid\nflowchart [[[\n```"
    user = new_user()
    async with stack.client(user) as client:
        session = await open_session(client)
        await converse(client, session, "/say " + answer.replace("\n", "\r"))
    page = await open_page(user, f"/c/{session}")
    await page.tab.until("document.querySelector('.diagram img')?.naturalWidth > 100")
    assert await page.tab.js("document.querySelectorAll('.diagram').length") == 1
    assert await page.tab.js("document.querySelectorAll('figure.code').length") == 2
    assert await page.tab.js("document.querySelectorAll('main svg:not(.icon), main script').length") == 0
    assert await page.tab.js("document.querySelector('iframe').contentDocument") is None  # of no origin
    assert await page.serious_faults() == []


async def test_the_frame_that_draws_diagrams_has_no_origin_and_reaches_no_server(stack: Stack) -> None:
    async with stack.client() as client:
        page, frame = await client.get("/"), await client.get("/diagrams.html")
    assert "unsafe" not in page.headers["content-security-policy"]
    policy = dict(rule.strip().split(" ", 1) for rule in frame.headers["content-security-policy"].split(";"))
    assert policy == {
        "sandbox": "allow-scripts",
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'unsafe-inline'",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'self'",
    }


@pytest.mark.parametrize("path", ["/", "/s/x"])
async def test_no_page_asks_for_mermaid_before_there_is_a_diagram(stack: Stack, path: str) -> None:
    async with stack.client() as client:
        page = (await client.get(path, headers=bearer(new_user()))).text
        assert "diagram" not in page.lower()
