"""The values of a conversation: callers, sessions, messages and tasks. Only `store` parses rows to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Any, Literal, TypeAlias

from backend.ids import ExecutorId, FileId, OperationId, SessionId, StreamId, TaskId, UserId, fence_of

Json: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, list or dict with string keys."""
MAX_DEPTH = 32
"""Levels of nesting that are accepted in JSON from others; deeper JSON can be stored but not always sent."""
ANSWER_ID = "msg_"
"""Prefix of the id of an answer; the id of its task follows."""
OWN_MESSAGE_ID = "usr_"
"""Prefix of the id of a user message to which the client gave none; the id of its task follows."""
SUMMARY_NOTICE = "summary"
"""The name of the data part of an answer for which the model read a summary for the first time."""
FILES_PATH = "/api/chat/files/"

FinishReason: TypeAlias = Literal["stop", "length", "content-filter", "tool-calls", "error", "other"]
"""The reasons of the AI SDK for which an answer ends."""


def is_too_deep(value: Json) -> bool:
    """Returns True if the value has more than MAX_DEPTH levels. Does not recurse, so no value can exhaust the stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        boxes = [box.values() if isinstance(box, dict) else box for box in level if isinstance(box, dict | list)]
        level = [item for box in boxes for item in box]
    return any(isinstance(item, dict | list) for item in level)


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
    STEER = "steer"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: a user, or an anonymous caller (`user_id` is None). `address` is the IP of the peer.

    `claims` are those of the token that MCP_CLAIMS names, with their values.
    """

    user_id: UserId | None
    address: str
    claims: tuple[tuple[str, str], ...] = ()

    @property
    def quota_key(self) -> str:
        """The key by which limits count: the user or, for an anonymous caller, the network of the address."""
        return f"user:{self.user_id}" if self.user_id is not None else f"addr:{_network_of(self.address)}"


def _network_of(address: str) -> str:
    """Returns an IPv6 address's /64 network, because one caller usually has all of its addresses. Keeps other texts."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ip_network((parsed, 64), strict=False))


# --- parts of a message -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class ProviderData:
    """Opaque data that a provider wants back with a part. Only the model that made it may get it.

    `made_by` names that model and its server (`executor/llm/provider_data.py`). `data` is bounded there.
    """

    made_by: str
    data: dict[str, Json]


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """Reasoning of the model. Anthropic wants `signature`, or the opaque form `redacted`, to be sent back unchanged.

    `provider` is None if the model's server wants nothing else back, and in rows of older versions.
    """

    text: str
    signature: str | None = None
    redacted: str | None = None
    provider: ProviderData | None = None
    type: Literal["reasoning"] = "reasoning"


@dataclass(frozen=True, slots=True)
class SourcePart:
    """A page that the answer cites. It is shown to the user, and never sent to a model."""

    source_id: str
    url: str
    title: str | None = None
    type: Literal["source-url"] = "source-url"


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A tool call of the model. `input` is an object, or the raw text if that could not be parsed.

    `provider` is None in rows of older versions, and if the call came from no provider.
    """

    tool_call_id: str
    tool_name: str
    input: Json
    provider: ProviderData | None = None
    type: Literal["tool_call"] = "tool_call"

    @property
    def readable(self) -> bool:
        return not isinstance(self.input, str)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The beginning of an output that is too long to be shown whole.

    `text` is the beginning of the output's JSON, or of the text if it is one; `characters` is the length of the whole.
    `members` are the output's `type`, `message` and `session_id`, or None if it is not an object.
    """

    text: str
    characters: int
    members: dict[str, Json] | None


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """The result of a tool call. `output` is a tool response (`protocol/tool_responses.py`).

    `is_error`: the call was cut short and has no output of its own; `output["message"]` gives the reason.
    `excerpt`: the part was read for a page of history, without the whole output; then `output` is `excerpt.members`.
    """

    tool_call_id: str
    tool_name: str
    output: Json
    is_error: bool = False
    excerpt: Excerpt | None = None
    type: Literal["tool_result"] = "tool_result"

    @property
    def awaits_result(self) -> bool:
        """Returns True if an operation may still replace this result: it is pending, or the call was cut short."""
        output = self.output
        return self.is_error or (isinstance(output, dict) and output.get("type") == "operation_pending")


@dataclass(frozen=True, slots=True)
class ContextPart:
    """The page that the user was viewing. The model reads it, but the conversation does not show it."""

    url: str | None
    content: str | None
    type: Literal["context"] = "context"


@dataclass(frozen=True, slots=True)
class NotePart:
    """A text from the server to the model. The conversation does not show it."""

    text: str
    type: Literal["note"] = "note"


@dataclass(frozen=True, slots=True)
class SummaryPart:
    """A model's summary of earlier messages, which a prompt has in their place. Messages are never stored with it."""

    text: str
    type: Literal["summary"] = "summary"


@dataclass(frozen=True, slots=True)
class DataPart:
    """A part of the type `data-<name>`. No model reads it.

    In a user's message it is the page's own. In an answer it is a notice of the server (SUMMARY_NOTICE).
    """

    name: str
    data: Json
    id: str | None = None

    @property
    def type(self) -> str:
        return f"data-{self.name}"


@dataclass(frozen=True, slots=True)
class MetadataPart:
    """The metadata that a page gave to its user's message: any JSON but null. No model reads it."""

    metadata: Json
    type: Literal["metadata"] = "metadata"


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file of a user's message. The table of files has its owner. `pages` is 0 unless it is a PDF."""

    file_id: FileId
    media_type: str
    filename: str
    size: int
    pages: int = 0
    type: Literal["file"] = "file"

    @property
    def url(self) -> str:
        """The address of the file at this server, without the host."""
        return f"{FILES_PATH}{self.file_id}"


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A file in a prompt. `data` is the picture or the PDF, empty until it is read. Messages are never stored with it.

    `tokens` is what the file may take. `as_text`: the model reads its text.
    """

    file: FilePart
    tokens: int
    as_text: bool = False
    data: bytes = b""
    type: Literal["prompt_file"] = "prompt_file"


Part: TypeAlias = (
    TextPart
    | FilePart
    | PromptFile
    | ReasoningPart
    | SourcePart
    | ToolCallPart
    | ToolResultPart
    | ContextPart
    | NotePart
    | SummaryPart
    | DataPart
    | MetadataPart
)


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is not stored yet. A tool message has exactly one ToolResultPart."""

    role: Role
    parts: tuple[Part, ...]

    def with_results(self, results: Mapping[str, Json]) -> NewMessage:
        """Returns a copy in which the results of operations, by tool call id, replace the parts that await them."""
        return replace(self, parts=tuple(_given(part, results) for part in self.parts))


def _given(part: Part, results: Mapping[str, Json]) -> Part:
    if isinstance(part, ToolResultPart) and part.awaits_result and part.tool_call_id in results:
        return replace(part, output=results[part.tool_call_id], is_error=False)
    return part


@dataclass(frozen=True, slots=True)
class Message:
    """One durable entry of a session. `step` counts the commits of its task: 0 is the user's message that it answers.

    `message_id` is None unless a client gave the message an id, which only user messages can have.
    """

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
    def files(self) -> tuple[FilePart, ...]:
        return tuple(part for part in self.parts if isinstance(part, FilePart))

    @property
    def is_shown(self) -> bool:
        """Returns True if pages show this message of a user: it has a text or a file."""
        return bool(self.text or self.files)

    @property
    def steered(self) -> bool:
        """Returns True for a user message that a running turn has taken in."""
        return self.role is Role.USER and self.step > 0

    @property
    def metadata(self) -> Json:
        """The metadata that a page gave to this user message, or None."""
        return next((part.metadata for part in self.parts if isinstance(part, MetadataPart)), None)

    @property
    def shown_id(self) -> str:
        """The id by which clients know a user message: its `message_id`, or one made from its task's id.

        A message that a turn has taken in always has a `message_id`.
        """
        return self.message_id or f"{OWN_MESSAGE_ID}{self.task_id}"


# --- sessions and tasks -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that one model call used, or the sum of several.

    `model` is the model that answered last: its id in the list of several, else its provider's name for it. None if no
    model answered, and in rows of older versions. `cost` is by currency, and lacks calls whose price is not known.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    model: str | None = None
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cached_tokens + other.cached_tokens,
            other.model or self.model,
            {name: self.cost.get(name, 0) + other.cost.get(name, 0) for name in {**self.cost, **other.cost}},
        )


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The id of a model in the operator's list, and a level of its effort. None: the default model, its usual level."""

    model: str | None = None
    effort: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation. `user_id` is None while it is anonymous, `title` until one is set.

    `choice` is the model that answers the next message, if that names none.
    `pinned`, `archived` and `folder_id` (None: no folder) say where the session is in its user's list.
    """

    id: SessionId
    user_id: UserId | None
    title: str | None
    metadata: Json
    created_at: datetime
    updated_at: datetime
    choice: ModelChoice = ModelChoice()
    pinned: bool = False
    archived: bool = False
    folder_id: str | None = None


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """The request of a turn. Its task keeps it; the row of the user message is written when the task becomes active."""

    text: str | None
    """None for a regeneration, and for an operation whose outcome has not arrived. Empty if there are only `files`."""
    message_id: str | None = None
    """The id that the client gave to the message, or None."""
    context: ContextPart | None = None
    """The page that the user is viewing. None if the client sent none."""
    is_user_message: bool = True
    """False for a note of a service, which only the model reads."""
    revises: str | None = None
    """The id of an earlier user message. A turn with a text replaces that message (an edit); a turn without a text
    answers it again (a regeneration). The message is looked up when the task becomes active."""
    data: tuple[DataPart, ...] = ()
    """Parts of the page's own, which no model reads."""
    metadata: Json = None
    """The page's own metadata, which no model reads."""
    files: tuple[FilePart, ...] = ()
    instructions: str | None = None
    """Text that follows the system prompt in this turn alone."""
    temporary: bool = False
    """The session holds this request alone, so it gets no title, no page shows it, and its user cannot be asked."""
    takes_questions: bool = False
    """The page shows questions to the user."""
    page_tools: tuple[Json, ...] = ()
    """Tools that the page carries out: `name`, and if the page gave them, `description` and `parameters` (a schema)."""
    claims: tuple[tuple[str, str], ...] = ()
    """Names and values of claims of the caller's token, for headers of tool servers."""
    choice: ModelChoice = ModelChoice()
    """The model. Once the task is accepted, this is the choice of its session at that moment."""
    parent: str | None = None
    """The message that a new one follows: at the end of its branch, or directly after it if `branches` is set. Empty
    for the beginning, None for the current branch (`flows/placing.py`). A regeneration names the version to answer."""
    branches: bool = False
    """The new message directly follows `parent`, as an alternative to what follows it already."""
    steers: TaskId | None = None
    """The running task that takes the message in before its next step. If that task ends first, the message begins a
    turn of its own (`flows/steering.py`)."""


@dataclass(frozen=True, slots=True)
class After:
    """The messages before a new one, as its client knows them: their ids, the newest last.

    The last one that the server knows tells which branch the client shows (`flows/placing.py`). `exact`: the new
    message follows that one even if others do, and begins the conversation if the server knows none. `known`: the
    server must know one.
    """

    ids: tuple[str, ...]
    exact: bool = False
    known: bool = False

    @classmethod
    def parent(cls, id: str) -> After:
        """Returns the place directly after this message, or at the beginning if `id` is empty."""
        return cls((id,) if id else (), exact=True, known=bool(id))


@dataclass(frozen=True, slots=True)
class TaskError:
    """The reason why a task failed: a stable code, and a sentence for the user."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """The end of a completed answer, as the model's provider tells it.

    `explanation` is a sentence of the provider to the user, or None. `refused`: the provider wants no more of this
    exchange, so it is left out of later prompts.
    """

    reason: FinishReason
    explanation: str | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A turn or an operation, as its row describes it. May be None:

    - `user_id`: the caller is anonymous.
    - `owner`: no executor has claimed it, or its claim was released, or it has ended.
    - `checkpoint`: no attempt has committed anything. For an operation: it is not opened.
    - `error`: it has not failed.
    - `answer_end`: it was not completed, or by an older version.
    - `tool_name`, `operation_id`: it is not an operation.
    - `started_at`: it was never claimed. `finished_at`: it has not ended.
    """

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
    answer_end: AnswerEnd | None = None
    age: float = field(default=0.0, compare=False)
    """Seconds since the first claim, when the row was read. Measured by the clock of Postgres, like `started_at`."""
    steered: bool = field(default=False, compare=False)
    """A message waited to be taken in when the task was claimed. False unless the row came from a claim."""

    @property
    def is_turn(self) -> bool:
        """Returns True for a turn, and for an operation whose outcome has made it one. False while it is pending."""
        return self.kind is TaskKind.TURN or self.request.text is not None

    @property
    def taken_by(self) -> TaskId | None:
        """Returns the task that has taken this message in, so that it never became a turn. None for all others."""
        taken = self.status is TaskStatus.COMPLETED and self.attempt == 0
        return self.request.steers if taken else None

    @property
    def fence(self) -> int:
        """The first half of the stream ids of the current attempt."""
        return fence_of(self.number, self.attempt)

    @property
    def message_id(self) -> str:
        """The id of the UI message that this task's stream builds (`start.messageId`)."""
        return f"{ANSWER_ID}{self.id}"

    @property
    def question_id(self) -> str | None:
        """The id of the user message that this task answers, as clients know it. None if the request names none."""
        if self.request.text is None:
            return self.request.revises
        return self.request.message_id or f"{OWN_MESSAGE_ID}{self.id}"


@dataclass(frozen=True, slots=True)
class Turn:
    """The content of a queue entry: only references, since the rest is in Postgres."""

    task_id: TaskId
    session_id: SessionId


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task that has ended. `next_turn` is the session's next turn, which the caller publishes, or None. `taken` are
    messages that waited for the task, and were stored when it was cancelled.
    """

    task: Task
    next_turn: Turn | None
    taken: Sequence[Message] = ()
