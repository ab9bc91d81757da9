"""A call that the user has approved. It runs in the continuation of its question, once."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from backend.chat.models import NewMessage, ToolResultPart
from backend.chat.protocol.chunks import Chunk
from executor.agent.calls import Calls, ToolHost


class ApprovedCall:
    """The only call of `calls`. `begun`: an earlier attempt may have run it.

    Its result is stored with the operation, and takes its place in the turn that made the call.
    """

    wait_for_user = False

    def __init__(self, calls: Calls, host: ToolHost, *, begun: bool) -> None:
        self._calls = calls
        self._host = host
        self._begun = begun
        self._running = begun
        self.result: ToolResultPart | None = None
        """None until the call has ended or was interrupted. Stays None if it was interrupted before it began."""

    def stored_messages(self) -> list[NewMessage]:
        return []

    async def run(self, *, again: bool = False) -> AsyncGenerator[Chunk, None]:
        """Stores that the call begins, then runs it. Raises Fenced if the claim is lost."""
        if not self._begun:
            await self._host.begin_run()
            self._running = True
        async with aclosing(self._calls.run(again=self._begun)) as chunks:
            async for chunk in chunks:
                yield chunk
        self.result = _result_in(self._calls.prompt_messages())

    def interrupt(self, why: str) -> tuple[list[Chunk], list[NewMessage]]:
        """Returns chunks that close the call, and no messages. Sets `result` if the call may have run."""
        closing, messages = self._calls.interrupt(why)
        if self._running and self.result is None:
            self.result = _result_in(messages)
        return closing, []


def _result_in(messages: list[NewMessage]) -> ToolResultPart:
    (part,) = (part for message in messages for part in message.parts if isinstance(part, ToolResultPart))
    return part
