"""Work that goes on at a server while executors ask for it: what a server tells, and what it can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from backend.chat.outcomes import Operation, Outcome, Progress, RemoteTask
from executor.tools.context import ToolContext


@dataclass(frozen=True, slots=True)
class StillRunning:
    """The state of work that has not ended. `pause`: seconds until the next poll.

    `wants` is what the work waits for, in the words of its server; None if it waits for nothing.
    """

    pause: float
    progress: Progress | None = None
    wants: Any = None


class WorkServer(Protocol):
    """A server that does the work of operations. No method raises because the server is away."""

    @property
    def name(self) -> str: ...

    @property
    def can_tell(self) -> bool:
        """Returns True if it is worth asking now."""
        ...

    async def look(self, work: RemoteTask, operation: Operation, context: ToolContext) -> StillRunning | Outcome | None:
        """Returns the state of the work, or its outcome. None if the server cannot be asked now."""
        ...

    async def answer(
        self, work: RemoteTask, wants: Any, operation: Operation, context: ToolContext, notes: list[str]
    ) -> Outcome | None:
        """Gives the server what the work waits for, as long as the user takes. Returns an outcome if it has ended.

        Adds to `notes`, which the outcome will have, what the model must know of the questions.
        """
        ...

    async def stop(self, work: RemoteTask) -> bool:
        """Has the server stop the work. Returns False if it could not be told."""
        ...
