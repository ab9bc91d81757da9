"""Messages that have arrived at this process and are not accepted yet, so that a stop can wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class ArrivingMessages:
    """Counts the messages that are on their way, by keys: a session's id, or a caller before the session is known."""

    def __init__(self) -> None:
        self._under_way: dict[str, int] = {}
        self._changed = asyncio.Event()

    @contextmanager
    def arriving(self, key: str) -> Iterator[None]:
        """Marks a message as on its way."""
        self._under_way[key] = self._under_way.get(key, 0) + 1
        self._announce()
        try:
            yield
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
            self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return sum(self._under_way.values())

    def __contains__(self, keys: Collection[str]) -> bool:
        return not self._under_way.keys().isdisjoint(keys)

    async def begun(self, keys: Collection[str], *, within: float) -> bool:
        """Waits up to `within` seconds for a message to be on its way. Returns False if none came."""
        return await self._until(keys, present=True, within=within)

    async def settled(self, keys: Collection[str], *, within: float) -> bool:
        """Waits up to `within` seconds until no message is on its way. Returns False if one still is."""
        return await self._until(keys, present=False, within=within)

    async def _until(self, keys: Collection[str], *, present: bool, within: float) -> bool:
        try:
            async with asyncio.timeout(within):
                while (keys in self) is not present:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
