"""The values of the house: callers, sessions, messages, tasks. Frozen; parsed from rows by their stores alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from backend.ids import ExecutorId, OperationId, SessionId, StreamId, TaskId, UserId, fence_of

Json: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, list or dict with string keys."""

ANSWER_ID = "msg_"
OWN_MESSAGE_ID = "usr_"


class TaskStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (TaskStatus.QUEUED, TaskStatus.RUNNING)


class TaskKind(StrEnum):
    TURN = "turn"
    OPERATION = "operation"


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class OnBusy(StrEnum):
    QUEUE = "queue"
    REJECT = "reject"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a user, or an anonymous caller known by address only. `address` is the peer's IP."""

    user_id: UserId | None
    address: str

    @property
    def quota_key(self) -> str:
        """What limits count by: the user, else the address."""
        return f"user:{self.user_id}" if self.user_id is not None else f"addr:{self.address}"


# --- parts of a message -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """What the model thought. `signature` (Anthropic) must be sent back unchanged; `redacted` is its opaque form."""

    text: str
    signature: str | None = None
    redacted: str | None = None
    type: Literal["reasoning"] = "reasoning"


@dataclass(frozen=True, slots=True)
class SourcePart:
    """A page that the answer rests on. For the user: no model is sent it."""

    source_id: str
    url: str
    title: str | None = None
    type: Literal["source-url"] = "source-url"


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """The model's wish to call a tool. `input` is an object, or the raw text when it could not be read."""

    tool_call_id: str
    tool_name: str
    input: Json
    type: Literal["tool_call"] = "tool_call"

    @property
    def readable(self) -> bool:
        return not isinstance(self.input, str)


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What came of a call. `output` is a tool response (contract, section 3).

    `is_error`: the call was cut short and has no output of its own; `output["message"]` says why.
    """

    tool_call_id: str
    tool_name: str
    output: Json
    is_error: bool = False
    type: Literal["tool_result"] = "tool_result"

    @property
    def awaits_result(self) -> bool:
        """An operation may still bring what belongs here: it is pending, or its call was cut short."""
        output = self.output
        return self.is_error or (isinstance(output, dict) and output.get("type") == "operation_pending")


@dataclass(frozen=True, slots=True)
class ContextPart:
    """The page the user was looking at; the model reads it, the conversation does not show it."""

    url: str | None
    content: str | None
    type: Literal["context"] = "context"


@dataclass(frozen=True, slots=True)
class NotePart:
    """What the server tells the model; the conversation does not show it."""

    text: str
    type: Literal["note"] = "note"


Part: TypeAlias = TextPart | ReasoningPart | SourcePart | ToolCallPart | ToolResultPart | ContextPart | NotePart


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that has no place in a session yet. A tool message holds exactly one ToolResultPart."""

    role: Role
    parts: tuple[Part, ...]

    def with_results(self, results: Mapping[str, Json]) -> NewMessage:
        """With the results of operations, by call, in the place of what awaits them."""
        return replace(self, parts=tuple(_given(part, results) for part in self.parts))


def _given(part: Part, results: Mapping[str, Json]) -> Part:
    if isinstance(part, ToolResultPart) and part.awaits_result and part.tool_call_id in results:
        return replace(part, output=results[part.tool_call_id], is_error=False)
    return part


@dataclass(frozen=True, slots=True)
class Message:
    """One durable entry of a session. `step` counts the commits of its task: 0 is the user's message."""

    session_id: SessionId
    sequence: int
    task_id: TaskId
    step: int
    role: Role
    parts: tuple[Part, ...]
    message_id: str | None
    created_at: datetime

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def shown_id(self) -> str:
        """Of a user's message: the id that the client gave it, else one of ours that never changes."""
        return self.message_id or f"{OWN_MESSAGE_ID}{self.task_id}"


# --- sessions and tasks -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call, or of several added up."""

    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Session:
    id: SessionId
    user_id: UserId | None
    title: str | None
    metadata: Json
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What a turn was asked to do. Kept on the task; its user message row is written when the task becomes active.

    `revises` is the id of an earlier message of the user: with a text, the turn takes its place (an edit); without,
    it answers it again (a regeneration). Where that message stands is found when the task becomes active.
    """

    text: str | None
    message_id: str | None = None
    context: ContextPart | None = None
    is_user_message: bool = True
    revises: str | None = None


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why a task failed: a stable code and a sentence for the user."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Task:
    id: TaskId
    number: int
    session_id: SessionId
    user_id: UserId | None
    kind: TaskKind
    status: TaskStatus
    active: bool
    attempt: int
    crashes: int
    owner: ExecutorId | None
    cancel_requested: bool
    checkpoint: StreamId | None
    steps: int
    request: TurnRequest
    usage: Usage
    error: TaskError | None
    tool_name: str | None
    operation_id: OperationId | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_turn(self) -> bool:
        """It is, or waits to be, its session's active task; else an operation that is outside."""
        return self.kind is TaskKind.TURN or self.request.text is not None

    @property
    def fence(self) -> int:
        """The first half of the stream ids of the attempt that stands."""
        return fence_of(self.number, self.attempt)

    @property
    def message_id(self) -> str:
        """The id of the UI message that this task's stream builds (`start.messageId`)."""
        return f"{ANSWER_ID}{self.id}"

    @property
    def question_id(self) -> str | None:
        """The id of the user's message that this task answers, as clients know it."""
        if self.request.text is None:
            return self.request.revises
        return self.request.message_id or f"{OWN_MESSAGE_ID}{self.id}"


@dataclass(frozen=True, slots=True)
class Turn:
    """What travels on the turn queue: references only, the content is in Postgres."""

    task_id: TaskId
    session_id: SessionId


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task ended, as its one finish decided it, and the turn that may run next in its session."""

    task: Task
    next_turn: Turn | None
