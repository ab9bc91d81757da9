"""The context of a tool call: the user for whom it runs, and the operations that it may start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from backend.chat.models import FilePart, Json, NewMessage
from backend.chat.outcomes import Operation, Outcome, Progress, RemoteTask, ToolWork
from backend.chat.protocol.chunks import Data
from backend.ids import SessionId, TaskId, UserId
from backend.postgres import Database

Claims = tuple[tuple[str, str], ...]
"""Claims of the caller's token that MCP_CLAIMS names, with their values."""


@dataclass(frozen=True, slots=True)
class StartedOperation:
    """The operation of a tool call. `already_started`: an earlier attempt at the call had started it."""

    operation: Operation
    already_started: bool


class ToolOperations(Protocol):
    """The operations of a tool's session. `executor.operations.Operations` documents the methods."""

    @property
    def limit(self) -> float: ...
    async def find(self, tool_call_id: str) -> Operation | None: ...
    async def register(self, work: ToolWork, limit: float = ...) -> Operation: ...
    async def register_remote(
        self, work: ToolWork, task: RemoteTask, *, ends_with_us: bool, due_in: float
    ) -> StartedOperation: ...
    async def begin_run(self, work: ToolWork, user: str, *, most: int, due_in: float) -> Operation: ...
    async def begin_schedule(self, work: ToolWork, *, most: int) -> Operation: ...
    async def name_remote(self, operation: Operation, remote_id: str, *, due_in: float) -> None: ...
    async def postpone_remote(self, operation: Operation, *, due_in: float) -> None: ...
    async def remote_of(self, operation: Operation) -> RemoteTask | None: ...
    async def settle_remote(self, operation: Operation, outcome: Outcome) -> Json | None: ...
    async def leave_remote(self, operation: Operation, *, due_in: float) -> None: ...
    async def ask(self, work: ToolWork) -> StartedOperation: ...
    async def ask_now(self, work: ToolWork, limit: float, show: Callable[[Operation], None]) -> Json: ...
    async def settle(self, operation: Operation, outcome: Outcome) -> Json | None: ...
    async def fail(self, tool_call_id: str, outcome: Outcome) -> Operation | None: ...
    async def mark_opened(self, operation: Operation) -> None: ...
    async def report_progress(self, tool_call_id: str, progress: Progress) -> None: ...
    async def run_in_background(self, work: ToolWork, run: Callable[[], Awaitable[Any]]) -> StartedOperation: ...


@dataclass(frozen=True, slots=True)
class Sampled:
    """The answer of the turn's model to a tool. `cut`: it ended at its limit of tokens."""

    text: str
    model: str
    cut: bool


Sample = Callable[[str, Sequence[NewMessage], int], Awaitable[Sampled]]
"""Asks the turn's model for a tool: a system prompt, messages, and the most tokens of the answer. The tokens count to
the turn. Raises ProviderError."""
ReportProgress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Shows how far a call is: the progress, its total if that is known, and a message."""

KeepFile = Callable[[bytes, str], Awaitable[FilePart]]
"""Keeps a file of a tool's answer, with this name, in the conversation. Raises an AppError if it cannot be kept."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The call's session, task and user. A tool works with the rights of this user, not with the server's.

    `clock` is the call's time limit, `progress` shows the user how far it is, `show` shows anything else in the stream,
    `sample` asks the turn's model; each may be missing. `can_ask`: the user's page shows questions. `resumed` is the
    operation of a call that the user has approved, or answered (`given`), if that is why it runs. `claims` are those of
    the token with which the message was sent. `keep_file` keeps the files of the answer.
    """

    session_id: SessionId
    task_id: TaskId
    tool_call_id: str
    user_id: UserId | None
    database: Database
    operations: ToolOperations
    clock: asyncio.Timeout | None = None
    progress: ReportProgress | None = None
    show: Callable[[Data], None] | None = None
    sample: Sample | None = None
    can_ask: bool = False
    resumed: Operation | None = None
    claims: Claims = ()
    again: bool = False
    """An earlier attempt may have run this call."""
    keep_file: KeepFile | None = None

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Stops the call's time limit while the block runs. The call may end before the block."""
        if self.clock is None or (end := self.clock.when()) is None:
            yield
            return
        loop = asyncio.get_running_loop()
        left = end - loop.time()
        self.clock.reschedule(None)
        try:
            yield
        finally:
            with suppress(RuntimeError):  # what asyncio raises when the call has ended, and its clock with it
                self.clock.reschedule(loop.time() + left)

    @property
    def owner(self) -> str:
        """The key of the business profile: the user's, or the session's if the user is anonymous."""
        return owner_of_session(self.user_id, self.session_id)


def owner_of_session(user_id: UserId | None, session_id: SessionId) -> str:
    """Returns the key of what belongs to a user, or to the session of an anonymous caller."""
    return f"user:{user_id}" if user_id is not None else f"session:{session_id}"
