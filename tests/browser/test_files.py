"""Tests of files on the page: picked, pasted and dropped, shown with the message, kept by a reload and an edit."""

from __future__ import annotations

import base64

from tests.browser.chat_page import FIELD
from tests.browser.conftest import OpenPage
from tests.pictures import picture

_ATTACHED = "[...document.querySelectorAll('.composer .files li')].map((li) => li.innerText.replace('×', '').trim())"
_PICTURE = "document.querySelector('article.user .files img')?.naturalWidth"
_NAMES = "[...document.querySelectorAll('article.user .files li')].map((li) => li.innerText.trim())"
_PROBLEM = "document.querySelector('.attached .problem')?.innerText ?? ''"
_WITH_FILE = """
const bytes = Uint8Array.from(atob('DATA'), (letter) => letter.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], 'NAME'));
"""
_PICK = """const input = document.querySelector('.composer input[type=file]');
input.files = data.files;
input.dispatchEvent(new Event('change', { bubbles: true }));"""
_PASTE = f"""document.querySelector('{FIELD}').dispatchEvent(
  new ClipboardEvent('paste', {{ clipboardData: data, bubbles: true, cancelable: true }}));"""
_DROP = """document.querySelector('.composer').dispatchEvent(
  new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));"""


def _given(how: str, name: str, data: bytes) -> str:
    code = _WITH_FILE.replace("DATA", base64.b64encode(data).decode()).replace("NAME", name) + how
    return f"(() => {{ {code} }})()"


async def test_files_are_picked_pasted_dropped_and_kept_by_a_reload_and_an_edit(open_page: OpenPage) -> None:
    page = await open_page()
    await page.tab.js(_given(_PICK, "p.png", picture(width=30, height=20)))
    await page.tab.until("document.querySelector('.composer .files img')?.naturalWidth === 30")
    await page.tab.js(_given(_PASTE, "t.txt", b"pasted"))
    await page.tab.shows(_ATTACHED, ["", "t.txt"])
    await page.tab.js(_given(_DROP, "d.txt", b"dropped"))
    await page.tab.shows(_ATTACHED, ["", "t.txt", "d.txt"])
    await page.tab.click('[aria-label="Remove d.txt"]')
    await page.tab.shows(_ATTACHED, ["", "t.txt"])
    await page.tab.js(_given(_DROP, "x.zip", b"PK\x03\x04\0\0"))
    await page.tab.until(f"{_PROBLEM}.startsWith('x.zip: Files may be PNG')")
    await page.send("/stream 3")
    await page.until_idle()
    await page.tab.shows(_ATTACHED, [])
    for _ in ("as it was sent", "as it was stored"):
        await page.tab.until(f"{_PICTURE} === 30")
        await page.tab.shows(_NAMES, ["", "t.txt"])
        assert await page.serious_faults() == []
        await page.reload()
        await page.until_idle()
    await page.edit("article.user", "1")
    await page.until_idle()
    await page.tab.shows(_NAMES, ["", "t.txt"])
    await page.reload()
    await page.until_idle()
    await page.tab.shows(_NAMES, ["", "t.txt"])


async def test_files_that_tools_wrote_are_linked(open_page: OpenPage) -> None:
    page = await open_page()
    write = '/tool write_workspace_file {"path": "notes/may.md", "content": "# May"}'
    await page.send(f"{write}\n/then\n/tool list_workspace_files {{}}\n/then\n/say Done")
    await page.tab.until("document.querySelectorAll('.tool .files a[href]').length === 2")  # of each call
    links = "[...document.querySelectorAll('.tool .files a')]"
    assert await page.tab.js(f"{links}.map((one) => one.innerText)") == ["notes/may.md"] * 2
    assert await page.tab.js(f"fetch({links}[0].href).then((answer) => answer.text())") == "# May"
    await page.until_idle()
    assert await page.serious_faults() == []
