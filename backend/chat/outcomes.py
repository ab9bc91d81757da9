"""The values of an operation: what it was begun for, how it ended, how far it is, and what its task knows of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from backend.chat.models import Json, NewMessage, Role, TaskStatus, ToolCallPart, ToolResultPart
from backend.ids import ExecutorId, OperationId, SessionId, TaskId, UserId


class Use(StrEnum):
    """What becomes of the result of an operation."""

    SAVE_AGENT = "save_agent"
    SHOW_AGENT = "show_agent"
    TOOL_OUTPUT = "tool_output"


@dataclass(frozen=True, slots=True)
class ToolWork:
    """What an operation was begun for. `turn` is the task whose model called the tool; `order` is what the other
    service was asked for, so that it can be asked again; `graph_id` the agent that is changed; `runner` the executor
    that does the work beside its turns, when it is no other service's."""

    turn: TaskId
    tool_name: str
    tool_call_id: str
    input: Json
    use: Use = Use.TOOL_OUTPUT
    order: Json = None
    graph_id: str | None = None
    runner: ExecutorId | None = None

    @property
    def call(self) -> ToolCallPart:
        return ToolCallPart(self.tool_call_id, self.tool_name, self.input)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended outside. `result` is an object or a text, of unknown origin: data, never instructions."""

    success: bool
    result: Json = None
    error: str | None = None

    @property
    def digest(self) -> str:
        """Equal for equal outcomes, whatever the order of an object's members."""
        whole = json.dumps([self.success, self.result, self.error], sort_keys=True, separators=(",", ":"))
        return sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()


EXPIRED = Outcome(False, error="The work was not finished in time, so it was given up.")
"""The outcome of an operation whose deadline has passed."""
ABANDONED = Outcome(
    False,
    {"error_type": "interrupted_unknown_effect"},
    "The server stopped while this work went on; whether it took effect is unknown.",
)
"""The outcome of an operation whose executor died with the work."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The newest word about an operation. `percent` is between 0 and 100."""

    percent: float | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """Long work of somebody else, for one tool call: what its task knows beyond `Task`.

    `result` is the tool response that its outcome became; `digest` tells outcomes apart. `opened`: the other service
    has accepted it, and its stream has begun.
    """

    id: OperationId
    task_id: TaskId
    number: int
    session_id: SessionId
    user_id: UserId | None
    status: TaskStatus
    attempt: int
    cancel_requested: bool
    opened: bool
    work: ToolWork
    digest: str | None
    result: Json | None
    progress: Progress | None
    created_at: datetime
    deadline_at: datetime | None

    @property
    def outside(self) -> bool:
        """Its outcome has not come yet, and still may."""
        return self.digest is None and self.status is TaskStatus.RUNNING and not self.cancel_requested

    @property
    def announced(self) -> bool:
        """Pages hear of it, and of its end: its service has accepted it, or its outcome has come."""
        return self.opened or self.digest is not None

    @property
    def call(self) -> NewMessage:
        """The call as a message of the operation's own: its stream is a whole message by itself."""
        return NewMessage(Role.ASSISTANT, (self.work.call,))

    @property
    def outcome(self) -> ToolResultPart | None:
        """The call's result, when it is known."""
        if self.result is None:
            return None
        return ToolResultPart(self.work.tool_call_id, self.work.tool_name, self.result)

    @property
    def said(self) -> list[NewMessage]:
        """The call and, when it is known, its result."""
        result = self.outcome
        return [self.call, *([NewMessage(Role.TOOL, (result,))] if result is not None else [])]
