"""A browser for tests: chromium, driven by a Node process (driver.mjs) that reads one job per line."""

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
from tests.servers.starting import OutputFile
from tests.speed import limit

FOLDER = Path(__file__).parent
LIMIT = limit(20)
"""Seconds that anything on a page may take."""


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, number)


class Browser:
    """A browser that does any number of jobs at once. Open it with `open_browser`."""

    def __init__(self, process: asyncio.subprocess.Process, output_file: OutputFile) -> None:
        self._process = process
        self._output_file = output_file
        self._over = False
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count()
        self._tabs = count()

    async def do(self, act: str, tab: str, *, within: float = LIMIT, **more: Any) -> Any:
        """Does one job and returns the driver's answer. Raises AssertionError if it fails or takes too long."""
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
        """Opens a new tab. The tabs of one user share the browser's storage."""
        name = f"tab-{next(self._tabs)}"
        await self.do("open", name, user=user, token=token, **more)
        return Tab(self, name)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Stops all processes of the browser while the block lasts, as a laptop does when its lid is closed."""
        pids = descendants(self._process.pid)
        try:
            _signal_all(pids, signal.SIGSTOP)
            yield
        finally:
            _signal_all(pids, signal.SIGCONT)

    async def read_answers(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                reply = json.loads(line)
                answer = self._waiting.pop(reply["id"])
                if answer.done():
                    continue
                if "error" in reply:
                    answer.set_exception(AssertionError(reply["error"]))
                else:
                    answer.set_result(reply["value"])
        finally:
            self._over = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(self._ended())

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"the browser's driver ended:\n{self._output_file.tail()}")


@dataclass(frozen=True, slots=True)
class Tab:
    """A tab of the browser. Selectors are those of puppeteer: CSS, `::-p-text(…)`, `::-p-aria(…)`."""

    browser: Browser
    name: str

    async def go(self, url: str) -> None:
        await self.browser.do("go", self.name, url=url)

    async def reload(self) -> None:
        await self.browser.do("reload", self.name)

    async def back(self) -> None:
        await self.browser.do("back", self.name)

    async def before(self, code: str) -> None:
        """Runs a script in every document that is opened from now on, before the document's own scripts."""
        await self.browser.do("before", self.name, code=code)

    async def url(self) -> str:
        return str(await self.browser.do("url", self.name))

    async def js(self, code: str) -> Any:
        """Evaluates an expression on the page and returns its value."""
        return await self.browser.do("eval", self.name, code=code)

    async def shows(self, code: str, value: Any) -> None:
        """Waits until an expression has that value on the page. Fails with its last value after LIMIT seconds."""
        deadline = asyncio.get_running_loop().time() + LIMIT
        while (seen := await self.js(code)) != value:
            assert asyncio.get_running_loop().time() < deadline, f"{code}: {seen!r} is not {value!r}"
            await asyncio.sleep(0.04)  # between two looks of a bounded wait

    async def until(self, code: str, within: float = LIMIT) -> None:
        """Waits until an expression is true on the page. Raises AssertionError with the page's text after `within`
        seconds."""
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
        """Presses keys together."""
        await self.browser.do("chord", self.name, keys=keys)

    async def offline(self, on: bool) -> None:
        await self.browser.do("offline", self.name, on=on)

    async def size(self, width: int, height: int) -> None:
        await self.browser.do("size", self.name, width=width, height=height)

    async def wheel(self, by: int) -> None:
        await self.browser.do("wheel", self.name, by=by)

    async def clipboard(self) -> str:
        """Returns the text in the clipboard."""
        return str(await self.browser.do("clipboard", self.name))

    async def shoot(self, path: Path) -> None:
        await self.browser.do("shoot", self.name, path=str(path))

    async def axe(self) -> list[dict[str, Any]]:
        """Returns the accessibility faults that axe finds on the page."""
        found: list[dict[str, Any]] = await self.browser.do("axe", self.name)
        return found

    async def errors(self) -> list[str]:
        """Returns the errors of the page's scripts and console."""
        found: list[str] = await self.browser.do("errors", self.name)
        return found

    async def close(self) -> None:
        await self.browser.do("close", self.name)


@asynccontextmanager
async def open_browser(chromium: str) -> AsyncIterator[Browser]:
    """Starts chromium, and ends it when the block is left. Needs `npm ci` in this folder before (make node)."""
    read = Browser.read_answers
    async with node_process(FOLDER, "driver.mjs", chromium, peer=Browser, read=read) as browser:
        yield browser
