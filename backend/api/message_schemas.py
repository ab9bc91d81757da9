"""The bodies of requests and responses about messages: new ones, waiting ones, and those that a turn takes in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from backend.api.schema_base import OF_AUTOGPT, Body, BodyWithNulls, MessageIdField, Reply, SessionIdField
from backend.chat.models import After, Json, OnBusy, Task
from backend.chat.questions import MAX_PAGE_TOOL_BYTES, MAX_PAGE_TOOLS

_ON_BUSY = (
    "What happens if another turn is running. `queue` waits for it, `reject` answers 409, and `interrupt` cancels it "
    "and goes ahead of waiting turns. `steer` has it read the message before its next step, and answers 202."
)
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


class PageContext(Body):
    """The page that the user is viewing. The model reads it; the conversation does not show it."""

    url: Annotated[str, StringConstraints(max_length=4_096)] | None = None
    content: Annotated[str, StringConstraints(max_length=200_000)] | None = None


class PageTool(BodyWithNulls):
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


class NewTurn(BodyWithNulls):
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
    page_tools: PageTools = []  # noqa: RUF012 - pydantic copies it
    file_ids: Annotated[
        list[str] | None, Field(max_length=20, description="Ids of files, which `POST /api/chat/files` returned.")
    ] = None
    mode: Annotated[Literal["fast", "extended_thinking"] | None, Field(description=OF_AUTOGPT)] = None
    model: Annotated[str | None, Field(max_length=100, description=_MODEL)] = None
    effort: Annotated[str | None, Field(max_length=32, description=_EFFORT)] = None


class PendingMessage(BodyWithNulls):
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


class QueuedTurn(Reply):
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


class Steered(Reply):
    """A message that waits until the running turn takes it in, or was taken in."""

    message_id: str = Field(description="The id of the message, by which its turn shows it.")
    task_id: str = Field(description="The running task, whose stream shows the message where the model has read it.")
    queued_task_id: str = Field(description="The message's own task. Cancel it to take the message back.")


class PendingCount(Reply):
    """The number of messages that wait in the session, and the limit for all sessions of the caller together."""

    buffer_length: int
    max_buffer_length: int
    turn_in_flight: bool


class PendingMessages(Reply):
    """The texts of the messages that wait for the session's running turn, in order."""

    messages: list[str]
    count: int
