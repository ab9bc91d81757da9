"""A subscription: the payloads that one listener gets from some channels, and whether it may have missed some."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

MAX_UNREAD = 256
"""Payloads that wait for a slow listener."""


class Subscription:
    """One listener's payloads from `channels`, in the order in which they came.

    A listener has missed something if it does not keep up, or if its connection was lost.
    """

    def __init__(self, channels: Iterable[bytes]) -> None:
        self.channels = frozenset(channels)
        self._unconfirmed = set(self.channels)
        self._unread: deque[bytes] = deque()
        self._missed = True
        self._changed = asyncio.Event()

    def add(self, payload: bytes) -> None:
        """Adds a payload. If MAX_UNREAD of them wait already, drops those and notes that some were missed."""
        if len(self._unread) >= MAX_UNREAD:
            self._unread.clear()
            self._missed = True
        self._unread.append(payload)
        self._changed.set()

    def confirm(self, channel: bytes) -> None:
        self._unconfirmed.discard(channel)
        self._changed.set()

    def disconnect(self) -> None:
        """Notes that the connection is gone: payloads are missed until all channels are confirmed again."""
        self._unconfirmed = set(self.channels)
        self._missed = True

    async def receive(self) -> list[bytes] | None:
        """Waits for payloads and returns those that came since the last call.

        Returns None if some may have been missed; the first call always does.
        """
        while self._unconfirmed or not (self._missed or self._unread):
            self._changed.clear()
            await self._changed.wait()
        if self._missed:
            self._missed = False
            self._unread.clear()
            return None
        received = list(self._unread)
        self._unread.clear()
        return received
