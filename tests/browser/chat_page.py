"""ChatPage: drives the chat page as its user does, and reads what it shows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from tests.browser.driving import LIMIT, Tab
from tests.speed import limit

ANSWERED_WITHIN = limit(30)
FIELD = ".composer textarea"
SEND = '.composer [type="submit"]'
STOP = '[aria-label="Stop"]'
_MESSAGES = """[...document.querySelectorAll('.thread article')].map((one) => [
    one.matches('.user') ? 'user' : 'assistant',
    one.matches('.user') ? one.querySelector('.bubble').textContent
      : [...one.querySelectorAll(':scope > .prose')].map((text) => text.textContent).join('\\n')])"""
_BOX = "document.querySelector('.scroll')"
# The messages in view, from top to bottom. null while one of them is not rendered yet.
SEEN = """(() => {
    const box = document.querySelector('.scroll').getBoundingClientRect();
    const visible = (one) => (({ top, bottom }) => bottom > box.top && top < box.bottom)(one.getBoundingClientRect());
    if ([...document.querySelectorAll('.group')].some((one) => visible(one) && !one.firstElementChild)) return null;
    return [...document.querySelectorAll('.thread article')].filter(visible)
        .map((one) => (one.querySelector('.bubble') ?? one.querySelector('.prose')).textContent);
})()"""
_MARK = f"""window.box = {_BOX}; window.marked = [...document.querySelectorAll('.thread article')]
    .find((one) => one.getBoundingClientRect().bottom > box.getBoundingClientRect().top);
    window.place = marked.getBoundingClientRect().top"""
AT_END = f"(b => b.scrollHeight - b.clientHeight - b.scrollTop < 2)({_BOX})"
_BUSY = "document.querySelector('[aria-label=\"Stop\"]') !== null"
_RENDERED = "new Promise((rendered) => setTimeout(rendered, 50))"
"""The page shows at once that an answer has ended, and its last words when a timer of 40 ms ends (`throttle` in
web/src/conversation/useConversation.ts). A longer one that begins later ends after that."""


@dataclass(frozen=True, slots=True)
class ChatPage:
    """The chat page in one tab of one user."""

    tab: Tab
    user: str
    base: str

    async def go(self, path: str) -> None:
        await self.tab.go(self.base + path)
        await self.tab.until("document.querySelector('main :is(.thread, .welcome, .sheet, h1)') !== null")

    async def reload(self) -> None:
        await self.tab.reload()

    async def session(self) -> str:
        """Returns the session's id from the address."""
        return (await self.tab.url()).rpartition("/")[2]

    async def path(self) -> str:
        return (await self.tab.url()).removeprefix(self.base)

    async def send(self, text: str) -> None:
        """Writes a message and sends it."""
        *before, last = text.split("\n")
        for line in before:
            await self.tab.type(FIELD, line)
            await self.tab.chord("Shift", "Enter")
        await self.tab.type(FIELD, last)
        await self.tab.press("Enter")

    async def edit(self, message: str, more: str) -> None:
        """Appends a text to a sent message and sends it again."""
        await self.begin_edit(message)
        await self.tab.type(".editor textarea", more)
        await self.tab.press("Enter")

    async def begin_edit(self, message: str) -> None:
        await self.tab.hover(message)
        await self.tab.click(f'{message} [aria-label="Edit message"]')

    async def rename(self, entry: str, title: str) -> None:
        """Changes the title of a conversation. `entry` is the selector of its entry in the sidebar."""
        await self.tab.hover(entry)
        await self.tab.click(f'{entry} [aria-label^="Rename"]')
        await self.tab.type(".sidebar .rename", title)
        await self.tab.press("Enter")

    async def until_text(self, text: str, within: float = LIMIT) -> None:
        """Waits until the newest answer contains the text."""
        await self.tab.until(f"({_MESSAGES}).at(-1)?.[1].includes({json.dumps(text)})", within)

    async def until_idle(self, answers: int = 1, within: float = ANSWERED_WITHIN) -> None:
        """Waits until there are so many answers and all of them are shown to their ends."""
        await self.tab.until(
            f"!({_BUSY}) && document.querySelectorAll('.thread article.answer').length === {answers}"
            " && document.querySelectorAll('.queued').length === 0",
            within,
        )
        await self.tab.js(_RENDERED)

    async def messages(self) -> list[tuple[str, str]]:
        """Returns the role and the text of each message, from top to bottom. Of answers, only the text parts count."""
        return [(role, text) for role, text in await self.tab.js(_MESSAGES)]

    async def answers(self) -> list[str]:
        return [text for role, text in await self.messages() if role == "assistant"]

    async def read_downwards(self) -> AsyncIterator[list[str]]:
        """Scrolls to the end as a reader does who waits until each view is rendered. Yields the messages that are new
        in each view, in order. Raises AssertionError if a message was skipped or has jumped."""
        read = await self._seen()
        yield read
        while not await self.tab.js(AT_END):
            seen = await self._scroll(300)
            yield seen[_overlap(read, seen) :]
            read = seen

    async def read_upwards(self, first: str) -> list[str]:
        """Scrolls up until the message `first` is in view, with the checks of `read_downwards`. Returns all messages
        that were in view, in the conversation's order."""
        read = await self._seen()
        while first not in read:
            seen = await self._scroll(-300)
            read = seen + read[_overlap(seen, read) :]
        return read

    async def _scroll(self, by: int) -> list[str]:
        """Scrolls by so many pixels and returns the messages in view. Raises AssertionError if a message moved by more
        or less than that."""
        await self.tab.js(f"{_MARK}; window.scrolled = box.scrollTop; box.scrollTop += {by}; scrolled -= box.scrollTop")
        seen = await self._seen()
        jumped = await self.tab.js("marked.isConnected ? marked.getBoundingClientRect().top - place - scrolled : 0")
        assert abs(jumped) < 3, f"the message at the top of the view has jumped by {jumped} pixels"
        return seen

    async def _seen(self) -> list[str]:
        await self.tab.until(f"{SEEN} !== null")
        seen: list[str] | None = await self.tab.js(SEEN)
        return seen if seen is not None else await self._seen()

    async def titles(self) -> list[str]:
        found: list[str] = await self.tab.js("[...document.querySelectorAll('.sidebar li a')].map((a) => a.innerText)")
        return found

    async def serious_faults(self) -> list[dict[str, Any]]:
        """Returns the accessibility faults that axe calls serious or critical."""
        return [fault for fault in await self.tab.axe() if fault["impact"] in ("serious", "critical")]


def stream_text(n: int) -> str:
    """Returns the text of the answer to `/stream n` as the page shows it."""
    return " ".join(str(number) for number in range(n))


def _overlap(above: list[str], below: list[str]) -> int:
    """Returns the number of messages that end the first list and begin the second. Raises AssertionError if it is 0."""
    known = next((n for n in range(min(len(above), len(below)), 0, -1) if above[-n:] == below[:n]), 0)
    assert known, f"two views have no message in common: {above[-3:]} and then {below[:3]}"
    return known
