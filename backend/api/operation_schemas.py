"""The bodies of requests and responses about operations and questions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from backend.api.schema_base import Body, Reply
from backend.chat.flows.answer import Answer
from backend.chat.models import Json
from backend.chat.outcomes import Operation, Outcome
from backend.chat.questions import Question, QuestionKind

BodyOperationId: TypeAlias = Annotated[
    str | None,
    Field(description="Must be the id in the path. Put it into a signed body, so that the signature covers it."),
]


class Completion(Body):
    """The outcome of an operation."""

    success: bool
    operation_id: BodyOperationId = None
    result: Annotated[
        dict[str, Json] | str | None, Field(description='The default for a success is `{"status": "completed"}`.')
    ] = None
    error: Annotated[
        Annotated[str, StringConstraints(max_length=10_000)] | None,
        Field(description="Why the operation failed. Not allowed for a success."),
    ] = None

    @model_validator(mode="after")
    def _success_has_no_error(self) -> Completion:
        if self.success and self.error is not None:
            raise ValueError("a success must not have an error")
        return self

    def outcome(self) -> Outcome:
        return Outcome(self.success, self.result, self.error)


class AnswerIn(Body):
    """An answer to a question: `answer` or `declined`. To an approval: `approved`, with `reason` or `always`. To a call
    of the page's tool: `output` or `error`. To what a tool server asks: `answer` (a form), `approved` (a link),
    `declined` or `dismissed`.
    """

    answer: Annotated[Json, Field(description="A text, a list of choices, or an object with the fields of a form.")] = (
        None
    )
    declined: Annotated[bool, Field(description="True if the user does not want to answer.")] = False
    approved: Annotated[bool | None, Field(description="Whether the call may run.")] = None
    reason: Annotated[
        Annotated[str, StringConstraints(max_length=2_000)] | None,
        Field(description="Why the call may not run. The model reads it."),
    ] = None
    always: Annotated[bool, Field(description="Also allows all further calls of the tool in this session.")] = False

    output: Annotated[Json, Field(description="The output of the page's tool.")] = None
    error: Annotated[
        Annotated[str, StringConstraints(max_length=2_000)] | None,
        Field(description="Why the page's tool has no output."),
    ] = None
    dismissed: Annotated[bool, Field(description="True if the user closes a tool server's question unanswered.")] = (
        False
    )

    def answer_given(self) -> Answer:
        decision = self.approved, self.reason, self.always
        return Answer(self.answer, self.declined, *decision, self.output, self.error, self.dismissed)


class ProgressIn(Body):
    """A progress report of an operation. It replaces earlier reports."""

    operation_id: BodyOperationId = None
    percent: Annotated[float, Field(ge=0, le=100, strict=False)] | None = None
    message: Annotated[str, StringConstraints(max_length=500)] | None = None


class ProgressOut(Reply):
    percent: float | None
    message: str | None


class QuestionOut(Reply):
    """A question to the user. `POST /operations/{operation_id}/answer` answers it.

    An `approval` asks whether the call of the tool may run, with `input`; a `page_tool` is a call that a page carries
    out. `text` is the tool's name then. An `elicitation` is what the tool server `server` asks in the middle of a call:
    a form, or that the user opens `url`. Members without a meaning are absent.
    """

    kind: Literal["question", "approval", "page_tool", "elicitation"]
    text: str | None = None
    choices: list[str] | None = None
    several: bool | None = Field(None, description="True if any number of the choices may be picked.")
    other: bool | None = Field(None, description="True if a text may be given instead of a choice.")
    form: dict[str, Json] | None = Field(None, description="A JSON Schema; the answer is an object that fits it.")
    server: str | None = None
    url: str | None = Field(None, description="https, or http on this machine. Show its host; never open it unasked.")
    input: Json = None

    @classmethod
    def of(cls, question: Question, input: Json) -> QuestionOut:
        of_call = question.kind in (QuestionKind.APPROVAL, QuestionKind.PAGE_TOOL)
        return cls.model_validate({**question.as_json(), **({"input": input} if of_call else {})})


class OperationOut(Reply):
    """Work that another service does for a tool call, or a question to the user, and that has not ended.

    `status` is `running` while the outcome is awaited, `queued` while the follow-up turn waits for the session, and
    `running` again during that turn. `asks` is there while a question awaits its answer.
    """

    operation_id: str
    task_id: str
    tool_name: str
    tool_call_id: str
    status: str
    progress: ProgressOut | None
    created_at: datetime
    deadline_at: datetime | None
    asks: QuestionOut | None = None

    @classmethod
    def of(cls, operation: Operation) -> OperationOut:
        work, progress = operation.work, operation.progress
        asked = {"asks": QuestionOut.of(work.asks, work.input)} if work.asks is not None and operation.pending else {}
        return cls(
            **asked,
            operation_id=operation.id,
            task_id=operation.task_id,
            tool_name=work.tool_name,
            tool_call_id=work.tool_call_id,
            status=operation.status.value,
            progress=None if progress is None else ProgressOut(percent=progress.percent, message=progress.message),
            created_at=operation.created_at,
            deadline_at=operation.deadline_at,
        )


class AnsweredOut(Reply):
    status: Literal["ok"] = "ok"
    task_id: str = Field(description="The task whose stream continues the conversation.")
    replayed: bool | None = Field(None, description="True if this answer had been given before.")


class CompletedOut(Reply):
    status: Literal["ok"] = "ok"
    task_id: str
    replayed: bool | None = Field(None, description="True if this outcome had been applied before.")
