"""The difference between the clock of this machine and the clock of a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class ClockReading:
    """One question to a store. `clock` is the store's time in its answer, in seconds since 1970."""

    clock: float | None = None


@dataclass(slots=True)
class ClockSkew:
    """Positive `seconds` mean that this machine is ahead. The value is 0 until a store has been asked.

    `limit` is in seconds; 0 means that no difference is too large.
    """

    limit: float
    seconds: float = 0.0
    _uncertainty: float = field(default=0.0, repr=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def too_large(self) -> bool:
        """Returns True if the difference is over the limit, however long the store took to answer."""
        return 0 < self.limit < abs(self.seconds) - self._uncertainty

    @contextmanager
    def measured(self) -> Iterator[ClockReading]:
        """Yields a reading, which the caller fills with the clock that the store reports.

        Compares it with the middle of the block, since the store read its clock at some moment in between.
        """
        before, reading = time.time(), ClockReading()
        yield reading
        after = time.time()
        if reading.clock is not None:
            self.seconds = (before + after) / 2 - reading.clock
            self._uncertainty = abs(after - before) / 2
            self._changed.set()

    async def until(self, *, too_large: bool) -> None:
        """Waits until `self.too_large` equals `too_large`; returns at once if it does. For one waiter at a time."""
        while self.too_large is not too_large:
            self._changed.clear()
            await self._changed.wait()
