"""The requests of A2A 1.0 over JSON-RPC, as far as this server reads them.

Source: `a2a.proto` 1.0 in its JSON form (https://a2a-protocol.org/latest/specification, 2026-11). As that form allows,
members may have their names in camelCase or snake_case, null is the same as no member, and bytes may be in either
alphabet of base64, with or without padding. Unknown members are ignored, because the protocol grows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from backend.api.user_message import MAX_FILES, GivenFile, UserMessage
from backend.api.webhook_schemas import MAX_URL
from backend.chat.models import Json, ModelChoice
from backend.chat.protocol.chunks import ascii_json
from backend.chat.protocol.renderings.a2a_tasks import STATES
from backend.errors import TooManyParts, UnsupportedPart, ValidationFailed
from backend.ids import SESSION_ID_PATTERN
from backend.setting_types import HttpUrl

Id: TypeAlias = Annotated[str, StringConstraints(max_length=255)]
PushId: TypeAlias = Annotated[str, StringConstraints(max_length=255, pattern=r"^[\x20-\x7e]*$")]
HeaderText: TypeAlias = Annotated[str, StringConstraints(max_length=4_096, pattern=r"^[\x21-\x7e]*$")]


class RpcRequest(BaseModel):
    """A request of JSON-RPC 2.0. Batches are not supported."""

    model_config = ConfigDict(extra="ignore", strict=True)

    jsonrpc: Literal["2.0"]
    id: Annotated[str, StringConstraints(max_length=1_000)] | int | None = None
    method: Annotated[str, StringConstraints(max_length=100)] = Field(description="For example `SendMessage`.")
    params: Annotated[dict[str, Json], BeforeValidator(lambda given: {} if given is None else given)] = {}


class _Params(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """Leaves out members that are null. Only `data` may be null itself."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None or name == "data"}


class A2APart(_Params):
    """A part of a message: exactly one of `text`, `data` (any JSON), `raw` (a file in base64) and `url`."""

    text: str | None = None
    data: Json = None
    raw: str | None = None
    url: str | None = None
    filename: Annotated[str, StringConstraints(max_length=1_000)] = ""
    media_type: Annotated[str, StringConstraints(max_length=255)] = ""


class A2AMessage(_Params):
    """A message to the agent. Its `task_id` must be empty: each message begins a task of its own."""

    message_id: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]
    context_id: Annotated[str, StringConstraints(pattern=f"{SESSION_ID_PATTERN}|^$")] = ""
    task_id: Id = ""
    role: Literal["ROLE_USER", 1]
    parts: Annotated[list[A2APart], Field(min_length=1, max_length=1_000)]
    metadata: dict[str, Json] | None = None

    def read(self) -> UserMessage:
        """Returns the message. The model reads data parts as JSON. Raises UnsupportedPart and TooManyParts."""
        texts: list[str] = []
        files: list[GivenFile] = []
        for part in self.parts:
            if part.text is not None:
                texts.append(part.text)
            elif part.raw is not None:
                files.append(GivenFile(None, f"data:{part.media_type};base64,{_plain_base64(part.raw)}", part.filename))
            elif part.url is not None:
                raise UnsupportedPart("This server fetches no URLs: send the file itself (`raw`).")
            elif "data" in part.model_fields_set:
                texts.append(ascii_json(part.data).decode())
            else:
                raise UnsupportedPart("A part has none of text, data and raw.")
        if len(files) > MAX_FILES:
            raise TooManyParts
        return UserMessage("\n".join(texts), metadata=self.metadata, files=tuple(files))


class Authentication(_Params):
    """What the header `Authorization` of a push has: the scheme (for example `Bearer`) and the credentials."""

    scheme: Annotated[str, StringConstraints(max_length=50, pattern=r"^[A-Za-z0-9._~+-]*$")] = ""
    credentials: Annotated[str, StringConstraints(max_length=4_096, pattern=r"^[\x20-\x7e]*$")] = ""

    @property
    def header(self) -> str | None:
        return f"{self.scheme} {self.credentials}" if self.scheme and self.credentials else None


class PushConfig(_Params):
    """A URL that is told when a task has ended."""

    id: PushId = ""
    task_id: Id = ""
    url: Annotated[HttpUrl, StringConstraints(max_length=MAX_URL)]
    token: HeaderText = ""
    authentication: Authentication | None = None


class SendConfiguration(_Params):
    """How a message is answered. `history_length` 0 leaves the message itself out of the answer."""

    task_push_notification_config: PushConfig | None = None
    history_length: Annotated[int, Field(ge=0)] | None = None
    return_immediately: bool = False


class RequestMetadata(_Params):
    """The part of a request's metadata that this server reads: the model that answers."""

    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    effort: Annotated[str, StringConstraints(max_length=100)] | None = None


class SendParams(_Params):
    message: A2AMessage
    configuration: SendConfiguration = SendConfiguration()
    metadata: RequestMetadata | None = None

    @property
    def choice(self) -> ModelChoice:
        named = self.metadata
        return ModelChoice() if named is None else ModelChoice(named.model or None, named.effort or None)


class TaskParams(_Params):
    """Names a task, for GetTask, CancelTask and SubscribeToTask."""

    id: Id
    history_length: Annotated[int, Field(ge=0)] | None = None


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is out of range") from None


class ListParams(_Params):
    """Names a context whose tasks are listed, newest first. `page_token` is the last task's number, as text."""

    context_id: Annotated[str, StringConstraints(pattern=f"{SESSION_ID_PATTERN}|^$")] = ""
    status: Literal[
        "", "TASK_STATE_UNSPECIFIED", "TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED",
        "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_INPUT_REQUIRED", "TASK_STATE_REJECTED",
        "TASK_STATE_AUTH_REQUIRED",
    ] = ""  # fmt: skip
    page_size: Annotated[int, Field(ge=0, le=100)] = 0
    page_token: Annotated[str, StringConstraints(pattern=r"^[0-9]{0,18}$")] = ""
    history_length: Annotated[int, Field(ge=0)] | None = None
    status_timestamp_after: Annotated[AwareDatetime, AfterValidator(_in_utc)] | None = None
    include_artifacts: bool = False

    @property
    def before(self) -> int:
        """The number before which the page begins."""
        return int(self.page_token or 2**62)

    def statuses(self) -> list[str]:
        """Returns the statuses of this server that are asked for; empty if no task can have that state."""
        if self.status in ("", "TASK_STATE_UNSPECIFIED"):
            return [status.value for status in STATES]
        return [status.value for status, state in STATES.items() if state == self.status]


class PushParams(_Params):
    """Names the pushes of a task, or one of them."""

    task_id: Id
    id: PushId = ""


def _plain_base64(raw: str) -> str:
    """Returns base64 of either alphabet in the usual one, with its padding."""
    text = raw.rstrip("=").replace("-", "+").replace("_", "/")
    return text + "=" * (-len(text) % 4)


def required_context(params: ListParams) -> str:
    """Raises ValidationFailed if the request names no context: this server lists the tasks of one."""
    if not params.context_id:
        raise ValidationFailed("`contextId` is required: tasks are listed by context.")
    return params.context_id
