"""The slots for concurrent calls of one server, shared fairly among the sessions that want them."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

from executor.mcp.failures import ServerBusy

MAX_CALLS = 16
"""Concurrent calls of one session to a server."""
RESERVED = 4
"""Further slots, for sessions that have no call under way."""
MAX_WAIT = 300.0
"""Seconds that a call waits for a slot. They do not count as its own time."""
MAX_WAITING = 2_000
"""Calls that wait at once. A further one is refused."""
Untimed = Callable[[], AbstractContextManager[None]]


class CallSlots:
    """Sessions take turns: of those that wait, the one that was served longest ago is next, with its oldest call."""

    def __init__(self, most: int = MAX_CALLS + RESERVED) -> None:
        self._most = most
        self._most_of_one = most - most // 5
        self._taken: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def slot(self, session: str, untimed: Untimed = nullcontext) -> AsyncIterator[None]:
        """Holds a slot while the block runs. `untimed` stops the call's clock while it waits. Raises ServerBusy."""
        if self._waiting or not self._is_free_for(session):
            with untimed():
                await self._wait(session)
        else:
            self._taken[session] += 1
        try:
            yield
        finally:
            self._leave(session)

    @asynccontextmanager
    async def lent(self, session: str) -> AsyncIterator[None]:
        """Gives the slot of a call to others while the block runs. The call has it back at once, whoever has it."""
        self._leave(session)
        try:
            yield
        finally:
            self._taken[session] += 1
            if not self._taken[session]:
                del self._taken[session]  # the call has ended and left meanwhile

    async def _wait(self, session: str) -> None:
        if sum(map(len, self._waiting.values())) >= MAX_WAITING:
            raise ServerBusy
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(session, deque()).append(turn)
        self._serve()
        try:
            async with asyncio.timeout(MAX_WAIT):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave(session)  # the slot came at the moment in which the call was given up
            else:
                self._forget(session, turn)
            if isinstance(error, TimeoutError):
                raise ServerBusy from None
            raise

    def _forget(self, session: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(session)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[session]

    def _is_free_for(self, session: str) -> bool:
        taken, own = self._taken.total(), self._taken[session]
        return taken < self._most and own < self._most_of_one and (own == 0 or taken < self._most_of_one)

    def _leave(self, session: str) -> None:
        self._taken[session] -= 1
        if not self._taken[session]:
            del self._taken[session]
        self._serve()

    def _serve(self) -> None:
        """Gives free slots to those that wait."""
        while (session := next(filter(self._is_free_for, self._waiting), None)) is not None:
            turns = self._waiting[session]
            turn = turns.popleft()
            if not turn.done():  # else it was cancelled just now
                turn.set_result(None)
                self._taken[session] += 1
            if turns:
                self._waiting.move_to_end(session)
            else:
                del self._waiting[session]
