"""The body of OpenAI's chat completions, as far as this server reads it.

Source: OpenAI's API reference, "Create chat completion" (2026). Fields that this server does not know are ignored, as
clients send many: the operator's settings decide about sampling and lengths. Fields that would change what the client
gets are refused unless they have their default.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backend.api.message_content import Content, text_of
from backend.chat.models import NewMessage, Role, TextPart
from backend.chat.protocol.renderings.openai_chunks import ToolsAs
from backend.errors import EmptyMessage, UnsupportedParameter

_REFUSED = ("audio", "logprobs", "top_logprobs")
_SYSTEM = ("system", "developer")
_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT}
MAX_HISTORY = 500
MAX_HISTORY_CHARS = 1_000_000
"""Characters that are kept of a client's conversation. The prompt is trimmed to the model's context in any case."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow")


class OpenAIMessage(BaseModel):
    """A message of the conversation. The texts of `system` and `developer` messages are instructions."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = None

    @property
    def text(self) -> str:
        """The text of the message. Raises UnsupportedPart."""
        return text_of(self.content)


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = False


class CompletionRequest(_Body):
    """A request for a chat completion. `tools_as`, an addition of this server, says how calls of tools are shown."""

    model: Annotated[str, Field(max_length=200, description="An id of `GET /v1/models`.")]
    messages: Annotated[list[OpenAIMessage], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    reasoning_effort: Annotated[str | None, Field(max_length=100, description="A level of the model's effort.")] = None
    tools_as: Annotated[ToolsAs | None, Field(description="`reasoning` (the default), `text` or `hidden`")] = None

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> Self:
        said = self._said()
        if not said or said[-1].role != "user":
            raise ValueError("the last message must be the user's")
        return self

    def _said(self) -> list[OpenAIMessage]:
        """Returns the messages without the instructions, which may stand anywhere."""
        return [message for message in self.messages if message.role not in _SYSTEM]

    @property
    def instructions(self) -> str | None:
        """The texts of the system and developer messages, or None."""
        texts = [text for message in self.messages if message.role in _SYSTEM and (text := message.text.strip())]
        return "\n\n".join(texts) or None

    @property
    def question(self) -> str:
        """The text of the last message, which is the user's. Raises EmptyMessage."""
        text = self._said()[-1].text
        if not text.strip():
            raise EmptyMessage
        return text

    def history(self) -> list[NewMessage]:
        """Returns the texts of the user and the assistant before the last message. Calls of tools are left out.

        Returns at most the newest MAX_HISTORY, with MAX_HISTORY_CHARS characters in all.
        """
        newest: list[NewMessage] = []
        room = MAX_HISTORY_CHARS
        for message in reversed(self._said()[:-1]):
            text = message.text if message.role in _ROLES else ""
            room -= len(text)
            if room < 0 or len(newest) == MAX_HISTORY:
                break
            if text.strip():
                newest.append(NewMessage(_ROLES[message.role], (TextPart(text),)))
        return newest[::-1]

    def check_supported(self) -> None:
        """Raises UnsupportedParameter for a field whose effect the client would miss."""
        extra = self.model_extra or {}
        refused = next((name for name in _REFUSED if extra.get(name)), None)
        if refused is not None:
            raise UnsupportedParameter(f"`{refused}` is not supported.")
        for name in ("tool_choice", "function_call"):  # `auto` lets the model call no tool, so it may be ignored
            if extra.get(name) not in (None, "auto", "none"):
                raise UnsupportedParameter(f"`{name}`: this server runs its own tools and calls none of clients.")
        if self.n not in (None, 1):
            raise UnsupportedParameter("`n`: a request has exactly one answer.")
        form = extra.get("response_format")
        if isinstance(form, dict) and form.get("type") not in (None, "text"):
            raise UnsupportedParameter("`response_format`: answers are text.")
