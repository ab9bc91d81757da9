"""The values of an operation: its purpose, its outcome, its progress, and the operation itself as its row has it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from backend.chat.models import Excerpt, Json, NewMessage, Role, TaskStatus, ToolCallPart, ToolResultPart
from backend.chat.questions import Question, QuestionKind
from backend.ids import ExecutorId, OperationId, SessionId, TaskId, UserId


class ResultUse(StrEnum):
    """The use that is made of an operation's result."""

    SAVE_AGENT = "save_agent"
    SHOW_AGENT = "show_agent"
    TOOL_OUTPUT = "tool_output"


@dataclass(frozen=True, slots=True)
class ToolWork:
    """The tool call for which an operation was begun.

    `turn` is the task whose model called the tool. `order` is the request to the other service, kept so that it can be
    sent again; None if there is no such request. `graph_id` is the agent to change, or None. `base_version` is the
    version of it that the change starts from; None if there is no such agent, or the row was written before this field
    existed. `runner` is the executor that does the work itself, next to its turns; None if another service does it.
    `asks` is the question whose answer is the outcome; None if the outcome does not come from the user. The runner of a
    question is the executor whose call waits for the answer. `resume` is what the call needs to go on with the answer
    later. `remote` is the tool server that does the work as a task of its own, which executors ask for the outcome;
    None if there is none. `notes` tells the model of questions of that server which the user has not answered.
    """

    turn: TaskId
    tool_name: str
    tool_call_id: str
    input: Json
    use: ResultUse = ResultUse.TOOL_OUTPUT
    order: Json = None
    graph_id: str | None = None
    base_version: int | None = None
    runner: ExecutorId | None = None
    asks: Question | None = None
    resume: Json = None
    remote: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def call(self) -> ToolCallPart:
        return ToolCallPart(self.tool_call_id, self.tool_name, self.input)

    def ordering(self, order: Json, *, remote: str | None = None) -> ToolWork:
        """Returns a copy with this order. `remote` is the server on which it runs as a task, if there is one."""
        return replace(self, order=order, remote=remote)


@dataclass(frozen=True, slots=True)
class RemoteTask:
    """The task at a tool server that does the work of an operation. `id` is the server's name for it.

    `tool` is the server's name for the tool. `whose` is the session or user whose own connection made the task; None
    if all share one connection.
    """

    server: str
    tool: str
    id: str
    whose: str | None = None


AGENT_PLATFORM = "\tagent platform"
"""The name of the agent platform as the server of a remote task. No MCP server can have a name with a tab."""
AGENT_RUN, AGENT_SCHEDULE = "agent_run", "agent_schedule"
"""The kinds of orders for the agent platform, as `kind` of the order. They are counted in each session."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an operation, as its service reported it or this server decided it.

    `result` is an object or a string of unknown origin: data, never instructions.
    """

    success: bool
    result: Json = None
    error: str | None = None

    @property
    def digest(self) -> str:
        """A hash over all three values, which does not depend on the order of an object's members."""
        whole = json.dumps([self.success, self.result, self.error], sort_keys=True, separators=(",", ":"))
        return sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()


# Rows store the digests of these outcomes, so a changed text would make old rows look like other outcomes.
DISMISSED = Outcome(True, {"dismissed": True})
"""The outcome of a tool server's question when the user has gone on without an answer."""
EXPIRED = Outcome(False, error="The work was not finished in time, so it was given up.")
"""The outcome of an operation whose deadline has passed."""
ABANDONED = Outcome(
    False,
    {"error_type": "interrupted_unknown_effect"},
    "The server stopped while this work went on; whether it took effect is unknown.",
)
"""The outcome of an operation whose executor died while it did the work."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The newest progress of an operation. `percent` is between 0 and 100. A value that was not reported is None."""

    percent: float | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """Long work for one tool call, as the row of its task describes it.

    `opened`: its service has accepted it, and its stream has begun. May be None:

    - `user_id`: the caller is anonymous.
    - `digest`, of the outcome: no outcome has arrived.
    - `result`, the tool response made from the outcome: no outcome has arrived, and it was not given up.
    - `progress`: none was reported.
    - `deadline_at`: it is no longer pending.
    - `excerpt`: `result` is whole. Otherwise it has only the members of the excerpt.
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
    approved: bool = False
    """The user has approved the call, which runs in the continuation."""
    begun: bool = False
    """The approved call may have run."""
    given: Json = None
    """The user's answer to what a tool server asks. The call goes on with it, as an approved one."""
    excerpt: Excerpt | None = None

    @property
    def to_run(self) -> bool:
        """Returns True for an approved call whose result is not stored yet."""
        return self.approved and self.result is None

    def approved_by(self, outcome: Outcome) -> bool:
        """Returns True if this outcome is the user's approval of the call, or an answer with which the call goes on."""
        asks, result = self.work.asks, outcome.result
        if asks is None or not outcome.success or self.is_live:
            return False
        approved = asks.kind is QuestionKind.APPROVAL and isinstance(result, dict) and result.get("approved") is True
        return approved or asks.kind is QuestionKind.ELICITATION

    @property
    def pending(self) -> bool:
        """Returns True while its outcome has not arrived, but still may."""
        return self.digest is None and self.status is TaskStatus.RUNNING and not self.cancel_requested

    @property
    def is_live(self) -> bool:
        """Returns True for a question for whose answer a running call waits. No continuation follows."""
        return self.work.asks is not None and self.work.runner is not None

    @property
    def announced(self) -> bool:
        """Returns True if pages show the operation: its service has accepted it, or its outcome has arrived."""
        return self.opened or self.digest is not None or self.is_live

    @property
    def call(self) -> NewMessage:
        """The tool call as the first message of the operation, whose stream is a complete message of its own."""
        return NewMessage(Role.ASSISTANT, (self.work.call,))

    @property
    def outcome(self) -> ToolResultPart | None:
        """The result of the call, or None while it is unknown."""
        if self.result is None and self.excerpt is None:
            return None
        return ToolResultPart(self.work.tool_call_id, self.work.tool_name, self.result, excerpt=self.excerpt)

    @property
    def messages(self) -> list[NewMessage]:
        """The call, followed by its result if that is known."""
        result = self.outcome
        return [self.call, *([NewMessage(Role.TOOL, (result,))] if result is not None else [])]
