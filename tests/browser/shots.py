"""Takes screenshots of the main views. Usage: python -m tests.browser.shots URL FOLDER, with `make run` at that URL."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.browser.chat_page import ChatPage
from tests.browser.driving import open_browser
from tests.servers.chromium_install import HINT, find

_GOAL = "Every morning at 8 read my mail, pick the bills and send me a summary"
_PREVIEW = json.dumps({"description": f"{_GOAL} [generator: 200]", "save": False})
_ANSWER = (
    "/say An answer has a **cursor**. After a cut the page sends back `Last-Event-ID`, and *exactly the rest* comes."
)


async def shoot(url: str, folder: Path) -> None:
    chromium = find()
    if chromium is None:
        raise SystemExit(HINT)
    folder.mkdir(parents=True, exist_ok=True)
    async with open_browser(chromium) as browser:
        page = ChatPage(await browser.open("shots", width=1100, height=720), "local", url)
        await page.go("/")
        await page.tab.shoot(folder / "empty.png")
        await page.send(_ANSWER)
        await page.until_idle()
        await page.send("Create an agent that reads my mail every morning at 8 and sends me a summary")
        await page.until_idle(3)
        await page.tab.shoot(folder / "conversation.png")
        await page.go("/")
        await page.send(f"/tool create_agent {_PREVIEW}")
        await page.until_idle()
        await page.tab.shoot(folder / "preview.png")
        dark = ChatPage(await browser.open("shots", width=1100, height=720, scheme="dark"), "local", url)
        await dark.go("/library")
        await dark.tab.click(".agents a")
        await dark.tab.until("document.querySelector('.graph') !== null")
        await dark.tab.shoot(folder / "agent-dark.png")
        phone = ChatPage(await browser.open("shots", width=390, height=760, scheme="dark"), "local", url)
        await phone.go(await page.path())
        await phone.until_idle()
        await phone.tab.shoot(folder / "phone-dark.png")


if __name__ == "__main__":
    asyncio.run(shoot(sys.argv[1].rstrip("/"), Path(sys.argv[2])))
