"""What one listener hears of some channels: the payloads that came, and whether some may have been missed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

MOST_UNHEARD = 256


class Ear:
    """`hear` waits. A listener that does not keep up, and one whose connection was lost, has missed something."""

    def __init__(self, channels: Iterable[bytes]) -> None:
        self.channels = frozenset(channels)
        self._unconfirmed = set(self.channels)
        self._unheard: deque[bytes] = deque()
        self._missed = True
        self._news = asyncio.Event()

    def add(self, payload: bytes) -> None:
        if len(self._unheard) >= MOST_UNHEARD:
            self._unheard.clear()
            self._missed = True
        self._unheard.append(payload)
        self._news.set()

    def confirm(self, channel: bytes) -> None:
        self._unconfirmed.discard(channel)
        self._news.set()

    def lose(self) -> None:
        """The connection is gone; what is said from now on is missed until all channels are confirmed again."""
        self._unconfirmed = set(self.channels)
        self._missed = True

    async def hear(self) -> list[bytes] | None:
        """What came since the last call; None: something may have been missed, also before the first call."""
        while self._unconfirmed or not (self._missed or self._unheard):
            self._news.clear()
            await self._news.wait()
        if self._missed:
            self._missed = False
            self._unheard.clear()
            return None
        heard = list(self._unheard)
        self._unheard.clear()
        return heard
