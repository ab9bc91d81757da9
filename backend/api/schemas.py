"""The bodies of requests and responses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from backend.chat.flows.answer import Answer
from backend.chat.models import ANSWER_ID, After, Json, OnBusy, Role, Session, Task, Usage
from backend.chat.outcomes import Operation, Outcome
from backend.chat.protocol.chunks_from_rows import cost_json
from backend.chat.questions import MAX_PAGE_TOOL_BYTES, MAX_PAGE_TOOLS, Question, QuestionKind
from backend.chat.store.alternatives import Alternatives
from backend.chat.store.derived.search import Hit
from backend.chat.store.instructions import MAX_INSTRUCTIONS
from backend.ids import SESSION_ID_PATTERN

MAX_TITLE = 200
_PRINTABLE = r"^[\x20-\x7e]{1,255}$"
SessionIdField = Annotated[str, StringConstraints(pattern=SESSION_ID_PATTERN)]
MessageIdField = Annotated[str, StringConstraints(pattern=_PRINTABLE)]
_ON_BUSY = (
    "What happens if another turn is running. `queue` waits for it, `reject` answers 409, and `interrupt` cancels it "
    "and goes ahead of waiting turns. `steer` has it read the message before its next step, and answers 202."
)
_OF_AUTOGPT = "A field of AutoGPT's page. It is checked, and has no effect."
_MODEL = (
    "The id of a model of `GET /models`. It answers this message, and the next ones of the session that name none. "
    "`standard` and `advanced`, which AutoGPT's page sends, have no effect unless they are ids."
)
_EFFORT = "A level of the model's `efforts`. It is kept until a message names a model or another level."
_PARENT = (
    "The id of the message that the new one follows, on a branch of its own if others follow that one already. Empty: "
    "the beginning of the conversation."
)
_NO_FILES = "Must be empty: messages cannot have files."


class _In(BaseModel):
    """A request body that is validated strictly and has no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _TakesNulls(_In):
    """A body that may have any further field whose value is null: some clients send all fields that they do not use."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"type": "null"}})

    @model_validator(mode="before")
    @classmethod
    def _without_unknown_nulls(cls, document: Json) -> Json:
        if not isinstance(document, dict):
            return document
        return {name: value for name, value in document.items() if value is not None or name in cls.model_fields}


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


# --- requests -----------------------------------------------------------------------------------------------------


MAX_METADATA_BYTES = 16_384


def _small(metadata: dict[str, Json] | None) -> dict[str, Json] | None:
    if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"has more than {MAX_METADATA_BYTES} bytes as JSON")
    return metadata


InstructionsField: TypeAlias = Annotated[
    Annotated[str, StringConstraints(max_length=MAX_INSTRUCTIONS)] | None,
    Field(description=f"What models are told after the operator's prompt; at most {MAX_INSTRUCTIONS:,} characters."),
]


class NewSession(_TakesNulls):
    """The session to create. Without an `id` the server makes one."""

    id: SessionIdField | None = None
    metadata: Annotated[
        dict[str, Json] | None,
        Field(description=f"Any object of at most {MAX_METADATA_BYTES} bytes as JSON. The server only stores it."),
        AfterValidator(_small),
    ] = None
    instructions: InstructionsField = None
    dry_run: Annotated[Literal[False] | None, Field(description=_OF_AUTOGPT)] = None
    expert_kickoff: Annotated[Literal[False] | None, Field(description=_OF_AUTOGPT)] = None
    llm_auth_provider: Annotated[Literal["platform"] | None, Field(description=_OF_AUTOGPT)] = None


class SessionChange(_TakesNulls):
    """The new title of a session."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TITLE)] = Field(
        json_schema_extra={"pattern": r"\S"}
    )


class SessionChanges(_TakesNulls):
    """The changes to a session. What is null or not named stays as it is; an empty text removes the instructions."""

    title: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=MAX_TITLE)] | None,
        Field(json_schema_extra={"pattern": r"\S"}),
    ] = None
    instructions: InstructionsField = None
    is_pinned: Annotated[bool | None, Field(description="Pinned sessions are at the top of the list.")] = None
    is_archived: Annotated[
        bool | None, Field(description="Archived sessions are in a list of their own, until their user writes in them.")
    ] = None
    folder_id: Annotated[
        Annotated[str, StringConstraints(max_length=64)] | None,
        Field(description="The folder of the caller to which the session moves. Empty: out of its folder."),
    ] = None

    @model_validator(mode="after")
    def _changes_something(self) -> SessionChanges:
        if self.title is None and self.instructions is None and not self.moves:
            raise ValueError("must name something to change")
        return self

    @property
    def moves(self) -> bool:
        """True if the session's place in the list changes."""
        return not (self.is_pinned is None and self.is_archived is None and self.folder_id is None)


class SessionPin(_TakesNulls):
    """Pins a session, or ends that."""

    is_pinned: bool


class InstructionsIn(_In):
    """The new instructions of a user."""

    instructions: InstructionsField


class InstructionsOut(_Out):
    instructions: str | None
    enabled: bool = Field(description="False if the operator allows none; stored ones then have no effect.")


class PageContext(_In):
    """The page that the user is viewing. The model reads it; the conversation does not show it."""

    url: Annotated[str, StringConstraints(max_length=4_096)] | None = None
    content: Annotated[str, StringConstraints(max_length=200_000)] | None = None


class PageTool(_TakesNulls):
    """A tool that the page carries out."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[str, StringConstraints(max_length=2_000)] = ""
    parameters: Annotated[dict[str, Json] | None, Field(description="A JSON Schema of an object.")] = None


def _few(tools: list[PageTool]) -> list[PageTool]:
    if len({tool.name for tool in tools}) < len(tools):
        raise ValueError("two tools have the same name")
    if len(orjson.dumps([tool.model_dump() for tool in tools])) > MAX_PAGE_TOOL_BYTES:
        raise ValueError(f"have more than {MAX_PAGE_TOOL_BYTES} bytes as JSON")
    return tools


PageTools: TypeAlias = Annotated[
    list[PageTool],
    Field(max_length=MAX_PAGE_TOOLS, description="Tools that the page carries out in this turn and what follows."),
    AfterValidator(_few),
]


class NewTurn(_TakesNulls):
    """A message that starts a turn."""

    message: str = Field(json_schema_extra={"pattern": r"\S"})
    is_user_message: Annotated[
        bool, Field(description="False makes it a note, which only the model reads. Notes need a service key.")
    ] = True
    context: PageContext | None = None
    message_id: Annotated[
        MessageIdField | None,
        Field(description="Identifies the message in its session. A message with a known id is not answered again."),
    ] = None
    idempotency_key: Annotated[
        MessageIdField | None, Field(description="The same as `message_id`, which takes precedence.")
    ] = None
    on_busy: Annotated[OnBusy, Field(strict=False, description=_ON_BUSY)] = OnBusy.QUEUE
    metadata: Annotated[
        dict[str, Json] | None, Field(description="Any object. It is kept with the message; no model reads it.")
    ] = None
    parent: Annotated[str | None, Field(max_length=255, description=_PARENT)] = None
    page_tools: PageTools = []
    file_ids: Annotated[
        list[str] | None, Field(max_length=20, description="Ids of files, which `POST /api/chat/files` returned.")
    ] = None
    mode: Annotated[Literal["fast", "extended_thinking"] | None, Field(description=_OF_AUTOGPT)] = None
    model: Annotated[str | None, Field(max_length=100, description=_MODEL)] = None
    effort: Annotated[str | None, Field(max_length=32, description=_EFFORT)] = None


class PendingMessage(_TakesNulls):
    """A message for a session in which a turn is running."""

    message: str = Field(json_schema_extra={"pattern": r"\S"})
    context: PageContext | None = None
    file_ids: Annotated[list[str] | None, Field(description=_NO_FILES)] = None


class UIMessageIn(BaseModel):
    """A message as the AI SDK sends it. Unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    id: str = ""
    role: str
    parts: list[dict[str, Json]] = []
    metadata: Json = None


class ChatRequest(BaseModel):
    """The body of the AI SDK's DefaultChatTransport. The server reads only the user's last message."""

    model_config = ConfigDict(extra="ignore")

    id: Annotated[
        SessionIdField, Field(description="The id of the session. A new message creates a session that does not exist.")
    ]
    messages: list[UIMessageIn] = []
    message: Annotated[UIMessageIn | None, Field(description="The last message, if it is not among `messages`.")] = None
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: Annotated[
        str | None, Field(alias="messageId", max_length=255, description="The message to edit or to answer again.")
    ] = None
    on_busy: Annotated[OnBusy, Field(description=_ON_BUSY)] = OnBusy.QUEUE
    page_tools: PageTools = []
    model: Annotated[str | None, Field(max_length=100, description=_MODEL)] = None
    effort: Annotated[str | None, Field(max_length=32, description=_EFFORT)] = None
    parent: Annotated[str | None, Field(max_length=255, description=_PARENT)] = None
    on_stale: Annotated[
        Literal["branch", "append"] | None,
        Field(
            description="Where a new message goes if `messages` lacks questions that were asked later: on a new branch "
            "after the last of `messages` (`branch`), or to the end of the conversation (`append`). The default is "
            "`append` while a turn runs, otherwise `branch`."
        ),
    ] = None

    @property
    def after(self) -> After | None:
        """The place at which the client shows its new message, or None if the request does not tell."""
        if self.parent is not None:
            return After.parent(self.parent)
        last = self.last_of_user
        before = tuple(message.id for message in self.messages if message is not last and message.id)
        return None if self.on_stale == "append" else After(before, exact=self.on_stale == "branch")

    @property
    def last_of_user(self) -> UIMessageIn | None:
        """The user's last message, or None if there is none."""
        if self.message is not None and self.message.role == "user":
            return self.message
        return next((message for message in reversed(self.messages) if message.role == "user"), None)


BodyOperationId: TypeAlias = Annotated[
    str | None,
    Field(description="Must be the id in the path. Put it into a signed body, so that the signature covers it."),
]


class Completion(_In):
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


class AnswerIn(_In):
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


class ProgressIn(_In):
    """A progress report of an operation. It replaces earlier reports."""

    operation_id: BodyOperationId = None
    percent: Annotated[float, Field(ge=0, le=100, strict=False)] | None = None
    message: Annotated[str, StringConstraints(max_length=500)] | None = None


# --- responses ----------------------------------------------------------------------------------------------------

ChatStatus = Literal["idle", "running"]


class SessionMade(_Out):
    id: str
    created_at: datetime
    user_id: str | None


class SessionSummary(_Out):
    id: str
    created_at: datetime
    updated_at: datetime
    title: str | None
    chat_status: ChatStatus = Field(description="`running` while a turn runs in the session.")
    is_processing: bool = Field(description="True if `chat_status` is `running`.")
    is_pinned: bool
    is_archived: bool
    folder_id: str | None = Field(description="Null if the session is in no folder.")

    @classmethod
    def of(cls, session: Session, *, running: bool) -> SessionSummary:
        return cls(
            id=session.id,
            created_at=session.created_at,
            updated_at=session.updated_at,
            title=session.title,
            chat_status="running" if running else "idle",
            is_processing=running,
            is_pinned=session.pinned,
            is_archived=session.archived,
            folder_id=session.folder_id,
        )


class SessionList(_Out):
    sessions: list[SessionSummary]
    total: int


class SnippetPiece(_Out):
    text: str
    match: bool


class SearchResult(_Out):
    session_id: str
    title: str | None
    sequence: int
    message_id: str = Field(description="The id of the message in `format=ui`.")
    role: Literal["user", "assistant"]
    created_at: datetime
    on_current_branch: bool = Field(description="False if another version is shown: see `branches` of the session.")
    snippet: list[SnippetPiece] = Field(
        description="The text around the match: pieces that match, and pieces that do not."
    )

    @classmethod
    def of(cls, hit: Hit) -> SearchResult:
        message = hit.message
        return cls(
            session_id=message.session_id,
            title=hit.title,
            sequence=message.sequence,
            message_id=message.shown_id
            if message.role is Role.USER and not message.steered
            else f"{ANSWER_ID}{message.task_id}",
            role="user" if message.role is Role.USER else "assistant",
            created_at=message.created_at,
            on_current_branch=hit.on_current_branch,
            snippet=[SnippetPiece(text=text, match=match) for text, match in hit.snippet],
        )


class SearchResults(_Out):
    results: list[SearchResult]


class ActiveStream(_Out):
    """The running task of the session. Read it with `GET /tasks/{task_id}/stream`; `messages` lacks its answer."""

    task_id: str
    turn_id: str = Field(description="The same as `task_id`.")
    started_at: datetime = Field(description="When the task was created.")
    last_message_id: str = "0-0"
    operation_id: str | None
    tool_name: str | None

    @classmethod
    def of(cls, task: Task) -> ActiveStream:
        return cls(
            task_id=task.id,
            turn_id=task.id,
            started_at=task.created_at,
            last_message_id="0-0",
            operation_id=task.operation_id,
            tool_name=task.tool_name,
        )


class QueuedTurn(_Out):
    """A turn that waits for the session's running turn."""

    task_id: str
    message: str | None = Field(description="The user's text. Null for a regeneration or a note of a service.")
    message_id: str | None
    created_at: datetime
    steers: str | None = Field(description="The running task that takes the message in before its next step, or null.")

    @classmethod
    def of(cls, task: Task, running: Task | None) -> QueuedTurn:
        request = task.request
        return cls(
            task_id=task.id,
            message=request.text if request.is_user_message else None,
            message_id=request.message_id,
            created_at=task.created_at,
            steers=request.steers if running is not None and request.steers == running.id else None,
        )


class Steered(_Out):
    """A message that waits until the running turn takes it in, or was taken in."""

    message_id: str = Field(description="The id of the message, by which its turn shows it.")
    task_id: str = Field(description="The running task, whose stream shows the message where the model has read it.")
    queued_task_id: str = Field(description="The message's own task. Cancel it to take the message back.")


class Leaf(_In):
    """The branch to switch to: the newest one that contains this message."""

    message_id: Annotated[
        MessageIdField, Field(description="One of the `siblings` in `branches`, or the id of any message.")
    ]


class LeafOut(_Out):
    message_id: str = Field(description="The id of the last message of the branch that is now the current one.")


class BranchesOut(_Out):
    """The alternatives of a message: edits of a question, other answers, or what else followed the same message."""

    id: str = Field(description="The id of the message that is shown, as in `format=ui`.")
    shown: str = Field(description="Its id among `siblings`.")
    index: int = Field(description="Its number among the alternatives, from 1.")
    count: int
    siblings: list[str] = Field(
        description="The ids by which POST `/sessions/{id}/leaf` switches to them, the oldest first. If there are more "
        "than 20, those around the shown one."
    )

    @classmethod
    def of(cls, one: Alternatives) -> BranchesOut:
        return cls(id=one.id, shown=one.shown, index=one.index, count=one.count, siblings=list(one.siblings))


class ProgressOut(_Out):
    percent: float | None
    message: str | None


class QuestionOut(_Out):
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


class OperationOut(_Out):
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


class UsageOut(_Out):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    cost: dict[str, float] = Field(
        description="The cost by currency. Answers of models whose price is not known do not count."
    )

    @classmethod
    def of(cls, usage: Usage) -> UsageOut:
        return cls(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cached_tokens=usage.cached_tokens,
            cost=cost_json(usage),
        )


class PriceOut(_Out):
    """Prices of a million tokens. `cached` is the price of those that the provider reads from its cache."""

    input: float
    output: float
    cached: float
    currency: str


class ModelOut(_Out):
    id: str = Field(description="The id that a message names in `model`.")
    label: str
    default: bool = Field(description="True for the model that answers in sessions without a choice.")
    context_tokens: int
    max_output_tokens: int
    efforts: list[str] = Field(description="The levels that a message may name in `effort`, from the lowest.")
    effort: str | None = Field(description="The level if a message names none. Null if the provider decides.")
    images: bool
    accepts: list[str] = Field(description="Files that it takes whole: `image`, `pdf`. It reads others as text.")
    price: PriceOut | None


class ModelsOut(_Out):
    """The models that answer, in the operator's order."""

    models: list[ModelOut]


class SessionDetails(_Out):
    id: str
    created_at: datetime
    updated_at: datetime
    user_id: str | None
    title: str | None
    is_pinned: bool
    is_archived: bool
    folder_id: str | None = Field(description="Null if the session is in no folder.")
    metadata: Json
    messages: list[Json]
    older: int | None = Field(
        None, description="Present if older messages exist. It is the value of `before` that returns them."
    )
    has_more_messages: bool = Field(description="True if older messages exist.")
    oldest_sequence: int | None = Field(
        description="The sequence number of the first message of `messages`, for `before`. Null if there is none."
    )
    chat_status: ChatStatus
    model: str = Field(description="The id of the model that answers the next message, if that names none.")
    effort: str | None = Field(description="Its level of effort. Null if none was chosen.")
    instructions: str | None = Field(description="What models are told in this session.")
    total_prompt_tokens: int = Field(description="The same as `usage.input_tokens`.")
    total_completion_tokens: int = Field(description="The same as `usage.output_tokens`.")
    active_stream: ActiveStream | None = None
    queued: list[QueuedTurn]
    branches: list[BranchesOut] = Field(description="Those of `messages` that have alternatives on other branches.")
    operations: list[OperationOut]
    usage: UsageOut


class PendingCount(_Out):
    """The number of messages that wait in the session, and the limit for all sessions of the caller together."""

    buffer_length: int
    max_buffer_length: int
    turn_in_flight: bool


class PendingMessages(_Out):
    """The texts of the messages that wait for the session's running turn, in order."""

    messages: list[str]
    count: int


class ChatTransport(_Out):
    auth_provider: Literal["platform"]
    credential_id: None
    label: str
    available: bool
    default: bool


class ChatTransports(_Out):
    """The connections to models among which a user may choose. There is one."""

    transports: list[ChatTransport]


class Ok(_Out):
    status: Literal["ok"] = "ok"


class AnsweredOut(_Out):
    status: Literal["ok"] = "ok"
    task_id: str = Field(description="The task whose stream continues the conversation.")
    replayed: bool | None = Field(None, description="True if this answer had been given before.")


class CompletedOut(_Out):
    status: Literal["ok"] = "ok"
    task_id: str
    replayed: bool | None = Field(None, description="True if this outcome had been applied before.")


class CancelOut(_Out):
    cancelled: bool
    task_id: str | None = None
    reason: str | None = Field(
        None,
        description="`no_active_task` if there was nothing to cancel; `message_not_received` if the named message "
        "will be cancelled when it arrives; `cancel_published_not_confirmed` if the task was "
        "not seen to end within 5 s.",
    )


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
    attempt: int = Field(description="The number of attempts so far. 0 means that work has not begun.")
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


class ToolResultOut(_Out):
    """The whole result of a tool call. `output` is a tool response (`GET /api/chat/schema/tool-responses`)."""

    type: Literal["tool_result"]
    tool_call_id: str
    tool_name: str
    output: Json
    is_error: bool = Field(description="True if the call was cut short; `output.message` gives the reason.")


class Ttl(_Out):
    """The time for which a stream can be resumed after it was last active."""

    stream_ttl_seconds: int
    stream_ttl_ms: int


class Health(_Out):
    status: str
    service: str
    version: str


class Readiness(_Out):
    status: str
    checks: dict[str, bool]
