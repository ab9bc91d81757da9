"""A call that is under way, and the server's requests to this client during it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from contextvars import ContextVar
from typing import Any

from executor.mcp.inputs import Inputs

LendSlot = Callable[[], AbstractAsyncContextManager[None]]
"""Gives the slot of the call to others while the block runs."""
MOST_REQUESTS = 16
"""Open requests of one call. Further ones are answered at once, as if the call had ended."""
CALL: ContextVar[LiveCall | None] = ContextVar("CALL", default=None)
"""The call in whose context a request arrives. The SDK's HTTP transport hands the context of a call on to the events
of its answer; over stdio, and in the stream of a GET, there is none."""


class LiveCall:
    """A call of `session`. The server's requests during it end with it."""

    def __init__(self, session: str, inputs: Inputs, lent: LendSlot) -> None:
        self.session = session
        self.inputs = inputs
        self._lent = lent
        self._loan = AsyncExitStack()
        self._jobs: set[asyncio.Future[Any]] = set()

    async def answer(self, answering: Coroutine[Any, Any, Any], otherwise: Any) -> Any:
        """Returns the answer to a request, or `otherwise` if the call ends before or has MOST_REQUESTS open already.

        The call's slot is lent while it has open requests, once for all of them.
        """
        if len(self._jobs) >= MOST_REQUESTS:
            answering.close()
            return otherwise
        if not self._jobs:
            await self._loan.enter_async_context(self._lent())
        job = asyncio.ensure_future(answering)
        self._jobs.add(job)
        try:
            await asyncio.wait({job})
            return otherwise if job.cancelled() else job.result()
        finally:
            self._jobs.discard(job)
            job.cancel()
            if not self._jobs:
                await self._loan.aclose()

    @property
    def waits(self) -> bool:
        """Returns True while the server waits for an answer."""
        return bool(self._jobs)

    def end(self) -> None:
        for job in self._jobs:
            job.cancel()


class LiveCalls:
    """The calls of one connection, the newest last."""

    def __init__(self) -> None:
        self._calls: dict[LiveCall, None] = {}

    def add(self, call: LiveCall) -> None:
        self._calls[call] = None

    def end(self, call: LiveCall) -> None:
        self._calls.pop(call, None)
        call.end()

    @property
    def wait(self) -> bool:
        """Returns True while the server waits for an answer to a request during one of the calls."""
        return any(call.waits for call in self._calls)

    def completed(self, elicitation_id: str) -> None:
        """Notes that the user has been at a link that the server asked for in one of the calls."""
        for call in self._calls:
            call.inputs.completed(elicitation_id)

    def asking(self) -> LiveCall | None:
        """Returns the call to which a request that arrives now belongs.

        A request that does not tell belongs to the only session that calls. Returns None if that is unclear: a question
        must not reach another user than the one whose call it is about.
        """
        call = CALL.get()
        if call in self._calls:
            return call
        sessions = {one.session for one in self._calls}
        return next(reversed(self._calls)) if len(sessions) == 1 else None
