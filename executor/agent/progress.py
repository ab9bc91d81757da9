"""Progress and other chunks that running tool calls report, on their way to the stream."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

from backend.chat.outcomes import Progress
from backend.chat.protocol.chunks import Data
from executor.llm.clean_text import clean

SHOW_EVERY = 0.5
"""Seconds between two progress chunks of a call."""
MAX_MESSAGE_CHARS = 300
LONGEST = 10
"""The time of a call that reports progress, as a multiple of its limit."""


def progress_of(done: float, total: float | None, message: str | None) -> Progress:
    """Returns what a tool reports in a form that can be shown: as a percentage if the total is known."""
    percent = None
    if total is not None and total > 0 and math.isfinite(done) and math.isfinite(total):
        percent = round(min(100.0, max(0.0, 100 * done / total)), 1)
    text = clean(message or "").strip()[:MAX_MESSAGE_CHARS]
    if not text and percent is None and math.isfinite(done):
        text = f"Step {done:g}"
    return Progress(percent, text or None)


class ProgressReports:
    """The newest report of each call, and other chunks. `arrived` is set while there is one to show."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self._newest: dict[str, Progress] = {}
        self._others: list[Data] = []
        self._shown_at: dict[str, float] = {}

    def add(self, tool_call_id: str, progress: Progress) -> None:
        """Keeps a report, unless the call has reported within SHOW_EVERY seconds."""
        now = asyncio.get_running_loop().time()
        if now - self._shown_at.get(tool_call_id, -math.inf) >= SHOW_EVERY:
            self._shown_at[tool_call_id] = now
            self._newest[tool_call_id] = progress
            self.arrived.set()

    def show(self, chunk: Data) -> None:
        """Keeps another chunk to show. None of these is left out."""
        self._others.append(chunk)
        self.arrived.set()

    def forget(self, tool_call_id: str) -> None:
        """Drops the report of a call that has ended."""
        self._newest.pop(tool_call_id, None)

    def take(self) -> Iterator[Data]:
        """Yields the chunks to show now. A later one of the same call replaces it on the page."""
        self.arrived.clear()
        newest, self._newest = self._newest, {}
        others, self._others = self._others, []
        yield from others
        for tool_call_id, progress in newest.items():
            known = {"percent": progress.percent, "message": progress.message}
            yield Data("progress", {name: value for name, value in known.items() if value is not None}, id=tool_call_id)


class TimeLimitExtension:
    """Restarts the time limit of a call at each progress report, up to LONGEST times the limit in total."""

    def __init__(self, timer: asyncio.Timeout, limit: float) -> None:
        self._timer = timer
        self._limit = limit
        self._last = asyncio.get_running_loop().time() + LONGEST * limit

    def extend(self) -> None:
        end = self._timer.when()
        if end is not None and not self._timer.expired():
            now = asyncio.get_running_loop().time()
            self._timer.reschedule(max(end, min(now + self._limit, self._last)))
