"""The bodies of requests and answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from backend.chat.messages import parts_json
from backend.chat.models import ContextPart, Json, Message, NotePart, OnBusy, ReasoningPart, Session, Task, Usage
from backend.chat.outcomes import Operation, Outcome
from backend.ids import SESSION_ID_PATTERN

MAX_TITLE = 200
_PRINTABLE = r"^[\x20-\x7e]{1,255}$"
SessionIdField = Annotated[str, StringConstraints(pattern=SESSION_ID_PATTERN)]
MessageIdField = Annotated[str, StringConstraints(pattern=_PRINTABLE)]


class _In(BaseModel):
    """A body of ours: strict, and nothing in it that we do not know."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


# --- what clients send --------------------------------------------------------------------------------------------


class NewSession(_In):
    id: SessionIdField | None = None
    metadata: dict[str, Json] | None = None


class SessionChange(_In):
    title: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TITLE)] = Field(
        json_schema_extra={"pattern": r"\S"}
    )


class PageContext(_In):
    """The page that the user looks at."""

    url: Annotated[str, StringConstraints(max_length=4_096)] | None = None
    content: Annotated[str, StringConstraints(max_length=200_000)] | None = None


class NewTurn(_In):
    message: str = Field(json_schema_extra={"pattern": r"\S"})
    is_user_message: bool = True
    context: PageContext | None = None
    message_id: MessageIdField | None = None
    on_busy: Annotated[OnBusy, Field(strict=False)] = OnBusy.QUEUE


class UIMessageIn(BaseModel):
    """What the AI SDK sends of a message; keys that it adds later are ignored."""

    model_config = ConfigDict(extra="ignore")

    id: str = ""
    role: str
    parts: list[dict[str, Json]] = []


class ChatRequest(BaseModel):
    """The body of the AI SDK's DefaultChatTransport."""

    model_config = ConfigDict(extra="ignore")

    id: SessionIdField
    messages: list[UIMessageIn] = []
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: Annotated[str | None, Field(alias="messageId", max_length=255)] = None
    on_busy: OnBusy = OnBusy.QUEUE


class Completion(_In):
    """How an operation ended. A success has no error; what is not said of its result is `{"status": "completed"}`. An
    `operation_id` must be the one of the path: it is how a signature covers that, too."""

    success: bool
    operation_id: str | None = None
    result: dict[str, Json] | str | None = None
    error: Annotated[str, StringConstraints(max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _success_has_no_error(self) -> Completion:
        if self.success and self.error is not None:
            raise ValueError("a success has no error")
        return self

    def outcome(self) -> Outcome:
        return Outcome(self.success, self.result, self.error)


class ProgressIn(_In):
    percent: Annotated[float, Field(ge=0, le=100, strict=False)] | None = None
    message: Annotated[str, StringConstraints(max_length=500)] | None = None


# --- what they get ------------------------------------------------------------------------------------------------


class SessionMade(_Out):
    id: str
    created_at: datetime
    user_id: str | None


class SessionSummary(_Out):
    id: str
    created_at: datetime
    updated_at: datetime
    title: str | None

    @classmethod
    def of(cls, session: Session) -> SessionSummary:
        return cls(id=session.id, created_at=session.created_at, updated_at=session.updated_at, title=session.title)


class SessionList(_Out):
    sessions: list[SessionSummary]
    total: int


class ActiveStream(_Out):
    """What to attach to: `GET /tasks/{task_id}/stream`. The running answer is not among the messages."""

    task_id: str
    last_message_id: str = "0-0"
    operation_id: str | None
    tool_name: str | None

    @classmethod
    def of(cls, task: Task) -> ActiveStream:
        return cls(task_id=task.id, last_message_id="0-0", operation_id=task.operation_id, tool_name=task.tool_name)


class QueuedTurn(_Out):
    task_id: str
    message: str | None
    message_id: str | None
    created_at: datetime

    @classmethod
    def of(cls, task: Task) -> QueuedTurn:
        request = task.request
        shown = request.text if request.is_user_message else None
        return cls(task_id=task.id, message=shown, message_id=request.message_id, created_at=task.created_at)


class ProgressOut(_Out):
    percent: float | None
    message: str | None


class OperationOut(_Out):
    """Work that goes on outside (`running`), or whose continuation waits (`queued`) or runs."""

    operation_id: str
    task_id: str
    tool_name: str
    tool_call_id: str
    status: str
    progress: ProgressOut | None
    created_at: datetime
    deadline_at: datetime | None

    @classmethod
    def of(cls, operation: Operation) -> OperationOut:
        work, progress = operation.work, operation.progress
        return cls(
            operation_id=operation.id,
            task_id=operation.task_id,
            tool_name=work.tool_name,
            tool_call_id=work.tool_call_id,
            status=operation.status.value,
            progress=None if progress is None else ProgressOut(percent=progress.percent, message=progress.message),
            created_at=operation.created_at,
            deadline_at=operation.deadline_at,
        )


class UsageOut(_Out):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    reasoning_tokens: int
    cached_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> UsageOut:
        return cls(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cached_tokens=usage.cached_tokens,
        )


class SessionDetails(_Out):
    id: str
    created_at: datetime
    updated_at: datetime
    user_id: str | None
    title: str | None
    metadata: Json
    messages: list[Json]
    older: int | None = None
    """There may be messages before these: ask with this as `before`."""
    active_stream: ActiveStream | None = None
    queued: list[QueuedTurn]
    operations: list[OperationOut]
    usage: UsageOut


class Ok(_Out):
    status: Literal["ok"] = "ok"


class CompletedOut(_Out):
    status: Literal["ok"] = "ok"
    task_id: str
    replayed: bool | None = None


class CancelOut(_Out):
    cancelled: bool
    task_id: str | None = None
    reason: str | None = None


class TaskErrorOut(_Out):
    code: str
    message: str


class TaskOut(_Out):
    task_id: str
    session_id: str
    status: str
    kind: str
    tool_name: str | None
    operation_id: str | None
    attempt: int
    created_at: datetime
    finished_at: datetime | None
    error: TaskErrorOut | None = None

    @classmethod
    def of(cls, task: Task) -> TaskOut:
        error = task.error
        return cls(
            task_id=task.id,
            session_id=task.session_id,
            status=task.status.value,
            kind=task.kind.value,
            tool_name=task.tool_name,
            operation_id=task.operation_id,
            attempt=task.attempt,
            created_at=task.created_at,
            finished_at=task.finished_at,
            error=TaskErrorOut(code=error.code, message=error.message) if error is not None else None,
        )


class Ttl(_Out):
    stream_ttl_seconds: int
    stream_ttl_ms: int


class Health(_Out):
    status: str
    service: str
    version: str


class Readiness(_Out):
    status: str
    checks: dict[str, bool]


def message_rows(messages: Sequence[Message]) -> list[Json]:
    """Rows as clients see them: without pages' context and without what only models read of reasoning."""
    return [_message_row(message) for message in messages if _shown(message)]


def _in_utc(moment: datetime) -> str:
    """As pydantic writes the other times of an answer."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _shown(message: Message) -> bool:
    return any(not isinstance(part, ContextPart | NotePart) for part in message.parts)


def _message_row(message: Message) -> Json:
    parts = [
        ReasoningPart(part.text) if isinstance(part, ReasoningPart) else part
        for part in message.parts
        if not isinstance(part, ContextPart | NotePart)
    ]
    return {
        "sequence": message.sequence,
        "role": message.role.value,
        "content": message.text,
        "parts": parts_json(parts),
        "message_id": message.message_id,
        "task_id": message.task_id,
        "created_at": _in_utc(message.created_at),
    }
