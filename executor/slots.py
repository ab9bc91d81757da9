"""A fixed number of slots for work at the same time, shared fairly among those that want them: calls of one server,
pages that are read, bytes of files in prompts.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

MAX_WAIT = 300.0
"""Seconds that a wait for a slot lasts at most, if nothing else is said. They do not count as a call's own time."""
MAX_WAITING = 2_000
"""Waits at once. A further one is refused."""
Untimed = Callable[[], AbstractContextManager[None]]


class NoSlot(Exception):
    """It took too long until slots were free, or too many wait for them."""


class Slots:
    """Slots that owners (sessions or users) share fairly.

    If several owners wait, the one that was served longest ago gets the next slot, for its oldest call. One owner holds
    at most four fifths of the slots. Only owners that hold none may take the last fifth. `wait` is in seconds.
    """

    def __init__(self, most: int, *, wait: float = MAX_WAIT) -> None:
        self._most = most
        self._most_of_one = most - most // 5
        self._longest_wait = wait
        self._taken: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()

    @property
    def taken(self) -> int:
        return self._taken.total()

    @asynccontextmanager
    async def slot(self, owner: str, untimed: Untimed = nullcontext, *, size: int = 1) -> AsyncIterator[None]:
        """Holds `size` slots while the block runs. `untimed` stops the call's clock while it waits. Raises NoSlot.

        A size above the share of one counts as that share.
        """
        size = min(size, self._most_of_one)
        if self._waiting or not self._is_free_for(owner, size):
            with untimed():
                await self._wait(owner, size)
        else:
            self._taken[owner] += size
        try:
            yield
        finally:
            self._leave(owner, size)

    @asynccontextmanager
    async def lent(self, owner: str) -> AsyncIterator[None]:
        """Gives the slot of a call to others while the block runs.

        The call continues at once afterwards, even if another one has the slot: for a while too many are taken.
        """
        self._leave(owner, 1)
        try:
            yield
        finally:
            self._taken[owner] += 1
            if not self._taken[owner]:
                del self._taken[owner]  # the call has ended and left meanwhile

    async def _wait(self, owner: str, size: int) -> None:
        if sum(map(len, self._waiting.values())) >= MAX_WAITING:
            raise NoSlot
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append((size, turn))
        self._serve()
        try:
            async with asyncio.timeout(self._longest_wait):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave(owner, size)  # the slot came at the moment in which the call was given up
            else:
                self._forget(owner, (size, turn))
            if isinstance(error, TimeoutError):
                raise NoSlot from None
            raise

    def _forget(self, owner: str, turn: tuple[int, asyncio.Future[None]]) -> None:
        turns = self._waiting.get(owner)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[owner]
            self._serve()  # others may have waited behind a large one

    def _is_free_for(self, owner: str, size: int) -> bool:
        taken, own = self._taken.total() + size, self._taken[owner] + size
        return taken <= self._most and own <= self._most_of_one and (own == size or taken <= self._most_of_one)

    def _leave(self, owner: str, size: int) -> None:
        self._taken[owner] -= size
        if not self._taken[owner]:
            del self._taken[owner]
        self._serve()

    def _next(self) -> str | None:
        """Returns who is served next. Behind one that only waits for others to leave, nobody is: it would never have
        so many slots together."""
        for owner, turns in self._waiting.items():
            size = turns[0][0]
            if self._is_free_for(owner, size):
                return owner
            if owner not in self._taken and not turns[0][1].done():
                return None
        return None

    def _serve(self) -> None:
        """Gives free slots to those that wait."""
        while (owner := self._next()) is not None:
            turns = self._waiting[owner]
            size, turn = turns.popleft()
            if not turn.done():  # else it was cancelled just now
                turn.set_result(None)
                self._taken[owner] += size
            if turns:
                self._waiting.move_to_end(owner)
            else:
                del self._waiting[owner]
