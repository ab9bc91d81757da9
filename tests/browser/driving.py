"""A browser for tests: chromium, driven by a Node process (driver.mjs) that takes one job a line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.servers.node_process import node_process
from tests.servers.process_tree import descendants
from tests.servers.starting import Words
from tests.speed import limit

FOLDER = Path(__file__).parent
LIMIT = limit(20)
"""Seconds that anything on a page may take to come about."""


def _tell(pids: Iterable[int], what: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # one that ended before its turn
            os.kill(pid, what)


class Browser:
    """Does jobs, any number at once. Open with `open_browser`."""

    def __init__(self, process: asyncio.subprocess.Process, words: Words) -> None:
        self._process = process
        self._words = words
        self._over = False
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count()
        self._tabs = count()

    async def do(self, act: str, tab: str, *, within: float = LIMIT, **more: Any) -> Any:
        """The driver's answer. Raises AssertionError when it could not be done within the limit."""
        if self._over:
            raise self._ended()
        number = next(self._numbers)
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        job = {"id": number, "do": act, "tab": tab, "limit": int(within * 1000), **more}
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        with suppress(ConnectionError):  # `read_answers` notices the end, too
            await self._process.stdin.drain()
        return await asyncio.wait_for(answer, within + LIMIT)

    async def open(self, user: str, token: str | None = None, **more: Any) -> Tab:
        """A new tab; the tabs of one user share a browser's storage."""
        name = f"tab-{next(self._tabs)}"
        await self.do("open", name, user=user, token=token, **more)
        return Tab(self, name)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """All of its processes stand still, as those of a laptop whose lid is closed."""
        pids = descendants(self._process.pid)
        try:
            _tell(pids, signal.SIGSTOP)
            yield
        finally:
            _tell(pids, signal.SIGCONT)

    async def read_answers(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                said = json.loads(line)
                answer = self._waiting.pop(said["id"])
                if answer.done():
                    continue
                if "error" in said:
                    answer.set_exception(AssertionError(said["error"]))
                else:
                    answer.set_result(said["value"])
        finally:
            self._over = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(self._ended())

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"the browser's driver ended:\n{self._words.tail()}")


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab. Selectors are those of puppeteer: CSS, `::-p-text(…)`, `::-p-aria(…)`."""

    browser: Browser
    name: str

    async def go(self, url: str) -> None:
        await self.browser.do("go", self.name, url=url)

    async def reload(self) -> None:
        await self.browser.do("reload", self.name)

    async def back(self) -> None:
        await self.browser.do("back", self.name)

    async def before(self, code: str) -> None:
        """Runs a script in every document that is opened from now on, before the document's own."""
        await self.browser.do("before", self.name, code=code)

    async def url(self) -> str:
        return str(await self.browser.do("url", self.name))

    async def js(self, code: str) -> Any:
        """What an expression is worth on the page."""
        return await self.browser.do("eval", self.name, code=code)

    async def until(self, code: str, within: float = LIMIT) -> None:
        """Waits until an expression is true on the page; AssertionError, with what the page shows, when it is not."""
        try:
            await self.browser.do("until", self.name, code=code, within=within)
        except AssertionError as late:
            shown = await self.js("document.body.innerText")
            raise AssertionError(f"{code}: {late}\nThe page shows:\n{shown[-3000:]}\n{await self.errors()}") from None

    async def click(self, selector: str) -> None:
        await self.browser.do("click", self.name, selector=selector)

    async def hover(self, selector: str) -> None:
        await self.browser.do("hover", self.name, selector=selector)

    async def type(self, selector: str, text: str) -> None:
        await self.browser.do("type", self.name, selector=selector, text=text)

    async def press(self, key: str) -> None:
        await self.browser.do("press", self.name, key=key)

    async def chord(self, *keys: str) -> None:
        """Keys held down together."""
        await self.browser.do("chord", self.name, keys=keys)

    async def offline(self, on: bool) -> None:
        await self.browser.do("offline", self.name, on=on)

    async def size(self, width: int, height: int) -> None:
        await self.browser.do("size", self.name, width=width, height=height)

    async def wheel(self, by: int) -> None:
        await self.browser.do("wheel", self.name, by=by)

    async def clipboard(self) -> str:
        """The text that would be pasted."""
        return str(await self.browser.do("clipboard", self.name))

    async def shoot(self, path: Path) -> None:
        await self.browser.do("shoot", self.name, path=str(path))

    async def axe(self) -> list[dict[str, Any]]:
        """What axe finds wrong with the page."""
        found: list[dict[str, Any]] = await self.browser.do("axe", self.name)
        return found

    async def errors(self) -> list[str]:
        """What the page's scripts complained of."""
        found: list[str] = await self.browser.do("errors", self.name)
        return found

    async def close(self) -> None:
        await self.browser.do("close", self.name)


@asynccontextmanager
async def open_browser(chromium: str) -> AsyncIterator[Browser]:
    """Starts chromium and ends it with the block. `npm ci` in this folder was done before (make node)."""
    read = Browser.read_answers
    async with node_process(FOLDER, "driver.mjs", chromium, peer=Browser, read=read) as browser:
        yield browser
