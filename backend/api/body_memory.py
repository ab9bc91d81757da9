"""The memory that request bodies may take in this process, and the one thread that decodes large ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from backend.errors import ServerBusy

FREE_BYTES = 65_536
"""Bytes of each body that do not count, so that short messages are accepted while others fill the memory."""
VALUE_BYTES = 100
"""Bytes that one decoded value takes, roughly."""
CALLERS_SHARE = 4
"""The fraction of the memory that one caller may take."""
_DECODED_WITHIN_S = 5.0
T = TypeVar("T")


class BodyMemory:
    """Counts the bytes that the bodies of all requests take, unfinished ones too, and those of each caller.

    A body larger than a caller's share counts as that share, so that a caller who sends one body at a time is never
    refused because of its size.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._share = max(total // CALLERS_SHARE, 1)
        self._taken: Counter[str] = Counter()
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="json")
        self.taken = 0

    @contextmanager
    def lease(self, caller: str) -> Iterator[BodyLease]:
        """Yields the lease of one body. After this block the body no longer counts."""
        lease = BodyLease(self, caller)
        try:
            yield lease
        finally:
            self.change(caller, -lease.held)

    def fits(self, caller: str, more: int) -> bool:
        return self.taken + more <= self._total and self._taken[caller] + more <= self._share

    def counted(self, size: int) -> int:
        """Returns the bytes that a body of this size counts as."""
        return min(max(size - FREE_BYTES, 0), self._share)

    def change(self, caller: str, more: int) -> None:
        self.taken += more
        self._taken[caller] += more
        if self._taken[caller] <= 0:
            del self._taken[caller]

    async def decode(self, load: Callable[[], T]) -> T:
        """Runs `load` in the one thread for large bodies, so that only one is decoded at a time.

        Raises ServerBusy if the result is not there within 5 s.
        """
        try:
            async with asyncio.timeout(_DECODED_WITHIN_S):
                return await asyncio.get_running_loop().run_in_executor(self._decoder, load)
        except TimeoutError:
            raise ServerBusy from None

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[BodyMemory]:
        """Ends the thread on exit."""
        try:
            yield self
        finally:
            self._decoder.shutdown(wait=False, cancel_futures=True)


class BodyLease:
    """The memory of one body. `held` is the number of bytes that it counts as."""

    def __init__(self, memory: BodyMemory, caller: str) -> None:
        self._memory = memory
        self._caller = caller
        self.held = 0

    def hold(self, size: int) -> None:
        """Counts the body as `size` bytes from now on. Raises ServerBusy if that much memory is not free."""
        more = self._memory.counted(size) - self.held
        if more > 0 and not self._memory.fits(self._caller, more):
            raise ServerBusy
        self._memory.change(self._caller, more)
        self.held += more
