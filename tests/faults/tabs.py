"""Tab: a strict client that reads a task's stream over many connections, each of which may be cut at any byte."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx

from backend.ids import BEGINNING
from tests.sse_client import StrictClient


class Tab:
    """A client that keeps what it has received of a task. It fails if a chunk comes twice. With `resets` it accepts
    `reset-step`."""

    def __init__(self, http: httpx.AsyncClient, bases: Sequence[str], task: str, *, resets: bool = False) -> None:
        self._http = http
        self._bases = bases
        self._task = task
        self._resets = resets
        self.shown = StrictClient(accepts_reset=resets)
        self.connections = self.broken = self.refused = 0

    async def connect(self, api: int = 0, *, cut: int | None = None) -> int:
        """Reads at most `cut` bytes from its cursor on, then disconnects. Returns the status. Raises
        httpx.TransportError if the server breaks the stream off, and AssertionError if the server ends it cleanly
        before `[DONE]`."""
        if self.shown.cursor == BEGINNING:
            self.shown = StrictClient(accepts_reset=self._resets)
        self.shown.reconnect()
        self.connections += 1
        path = f"{self._bases[api % len(self._bases)]}/api/chat/tasks/{self._task}/stream"
        known = {"accept": "reset-step"} if self._resets else {}
        cursor = {"last-event-id": str(self.shown.cursor)} if self.shown.cursor != BEGINNING else {}
        async with self._http.stream("GET", path, params=known, headers=cursor) as response:
            if response.status_code == 200:
                await self._read(response, cut)
            return response.status_code

    async def _read(self, response: httpx.Response, cut: int | None) -> None:
        left = cut
        async for data in response.aiter_raw():
            self.shown.feed(data if left is None else data[:left])
            if left is not None and (left := left - len(data)) <= 0:
                return
        assert self.shown.done, f"a clean end after {self.shown.types[-3:]}"

    @property
    def ended(self) -> bool:
        """Returns True if the `finish` chunk has come, with or without the `[DONE]` after it."""
        return bool(self.shown.chunks) and self.shown.chunks[-1]["type"] == "finish"

    async def read_to_the_end(self, api: int = 0) -> None:
        """Reads the rest over one last, unbroken connection."""
        status = await self.connect(api)
        assert status == (204 if self.shown.chunks and self.ended and not self.shown.done else 200), status
        assert self.ended

    async def follow(self, api: int = 0) -> bool:
        """Reads to the end as a well-behaved client does: it reconnects after a broken connection, and after 410 starts
        from the beginning. Returns False if the task had ended at a 410, so that only the conversation has the answer.
        The caller bounds the wait."""
        while True:
            try:
                status = await self.connect(api)
            except httpx.TransportError:
                self.broken += 1
            else:
                if status in (200, 204):
                    assert self.ended
                    return True
                assert status in (410, 503), status
                if status == 410:
                    self.refused += 1
                    self.shown = StrictClient(accepts_reset=self._resets)
                    if await self.task_has_ended(api):
                        return False
            await asyncio.sleep(0.1)  # a client's pause before it reconnects

    async def task_has_ended(self, api: int = 0) -> bool:
        response = await self._http.get(f"{self._bases[api % len(self._bases)]}/api/chat/tasks/{self._task}")
        return response.status_code == 200 and response.json()["finished_at"] is not None

    @property
    def ending(self) -> str:
        """The status in the `finish` chunk."""
        status: str = self.shown.chunks[-1]["messageMetadata"]["status"]
        return status


def without_torn(steps: Sequence[str], whole: Sequence[str]) -> tuple[list[str], int]:
    """Returns the steps without those that a crash cut off, and the number of these. A torn step is a beginning of the
    step that follows it, perhaps all of it. The steps of `whole` must begin differently."""
    kept: list[str] = []
    for step in filter(None, steps):
        if kept and len(kept) <= len(whole) and all(whole[len(kept) - 1].startswith(one) for one in (kept[-1], step)):
            kept.pop()
        kept.append(step)
    return kept, len(steps) - len(kept)
