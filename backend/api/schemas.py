"""The bodies of requests and responses about sessions, tasks, models and the state of the service."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import orjson
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from backend.api.message_schemas import QueuedTurn
from backend.api.operation_schemas import OperationOut
from backend.api.schema_base import OF_AUTOGPT, Body, BodyWithNulls, MessageIdField, Reply, SessionIdField
from backend.chat.models import ANSWER_ID, Json, Role, Session, Task, Usage
from backend.chat.protocol.chunks_from_rows import cost_json
from backend.chat.store.alternatives import Alternatives
from backend.chat.store.derived.search import Hit
from backend.chat.store.instructions import MAX_INSTRUCTIONS

MAX_TITLE = 200


MAX_METADATA_BYTES = 16_384


def _small(metadata: dict[str, Json] | None) -> dict[str, Json] | None:
    if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"has more than {MAX_METADATA_BYTES} bytes as JSON")
    return metadata


InstructionsField: TypeAlias = Annotated[
    Annotated[str, StringConstraints(max_length=MAX_INSTRUCTIONS)] | None,
    Field(description=f"What models are told after the operator's prompt; at most {MAX_INSTRUCTIONS:,} characters."),
]


class NewSession(BodyWithNulls):
    """The session to create. Without an `id` the server makes one."""

    id: SessionIdField | None = None
    metadata: Annotated[
        dict[str, Json] | None,
        Field(description=f"Any object of at most {MAX_METADATA_BYTES} bytes as JSON. The server only stores it."),
        AfterValidator(_small),
    ] = None
    instructions: InstructionsField = None
    dry_run: Annotated[Literal[False] | None, Field(description=OF_AUTOGPT)] = None
    expert_kickoff: Annotated[Literal[False] | None, Field(description=OF_AUTOGPT)] = None
    llm_auth_provider: Annotated[Literal["platform"] | None, Field(description=OF_AUTOGPT)] = None


class SessionChange(BodyWithNulls):
    """The new title of a session."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TITLE)] = Field(
        json_schema_extra={"pattern": r"\S"}
    )


class SessionChanges(BodyWithNulls):
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


class SessionPin(BodyWithNulls):
    """Pins a session, or ends that."""

    is_pinned: bool


class InstructionsIn(Body):
    """The new instructions of a user."""

    instructions: InstructionsField


class InstructionsOut(Reply):
    instructions: str | None
    enabled: bool = Field(description="False if the operator allows none; stored ones then have no effect.")


ChatStatus = Literal["idle", "running"]


class SessionMade(Reply):
    id: str
    created_at: datetime
    user_id: str | None


class SessionSummary(Reply):
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


class SessionList(Reply):
    sessions: list[SessionSummary]
    total: int


class SnippetPiece(Reply):
    text: str
    match: bool


class SearchResult(Reply):
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


class SearchResults(Reply):
    results: list[SearchResult]


class ActiveStream(Reply):
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


class Leaf(Body):
    """The branch to switch to: the newest one that contains this message."""

    message_id: Annotated[
        MessageIdField, Field(description="One of the `siblings` in `branches`, or the id of any message.")
    ]


class LeafOut(Reply):
    message_id: str = Field(description="The id of the last message of the branch that is now the current one.")


class BranchesOut(Reply):
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


class UsageOut(Reply):
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


class PriceOut(Reply):
    """Prices of a million tokens. `cached` is the price of those that the provider reads from its cache."""

    input: float
    output: float
    cached: float
    currency: str


class ModelOut(Reply):
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


class ModelsOut(Reply):
    """The models that answer, in the operator's order."""

    models: list[ModelOut]


class SessionDetails(Reply):
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


class ChatTransport(Reply):
    auth_provider: Literal["platform"]
    credential_id: None
    label: str
    available: bool
    default: bool


class ChatTransports(Reply):
    """The connections to models among which a user may choose. There is one."""

    transports: list[ChatTransport]


class Ok(Reply):
    status: Literal["ok"] = "ok"


class CancelOut(Reply):
    cancelled: bool
    task_id: str | None = None
    reason: str | None = Field(
        None,
        description="`no_active_task` if there was nothing to cancel; `message_not_received` if the named message "
        "will be cancelled when it arrives; `cancel_published_not_confirmed` if the task was "
        "not seen to end within 5 s.",
    )


class TaskErrorOut(Reply):
    code: str
    message: str


class TaskOut(Reply):
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


class ToolResultOut(Reply):
    """The whole result of a tool call. `output` is a tool response (`GET /api/chat/schema/tool-responses`)."""

    type: Literal["tool_result"]
    tool_call_id: str
    tool_name: str
    output: Json
    is_error: bool = Field(description="True if the call was cut short; `output.message` gives the reason.")


class Ttl(Reply):
    """The time for which a stream can be resumed after it was last active."""

    stream_ttl_seconds: int
    stream_ttl_ms: int


class Health(Reply):
    status: str
    service: str
    version: str


class Readiness(Reply):
    status: str
    checks: dict[str, bool]
