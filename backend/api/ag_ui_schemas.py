"""The input of a run of AG-UI 1.0, as far as this server reads it.

Source: `RunAgentInput` of `@ag-ui/core` 1.0.0 (2026-11). Members that this server does not know are ignored: the
protocol grows. `tools` of the page are ignored: they may be called, and this server calls its own. What would change
what the client gets is refused.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from backend.api.message_content import Content, text_of
from backend.api.schema_base import SessionIdField
from backend.chat.models import ContextPart, Json, ModelChoice
from backend.errors import EmptyMessage, UnsupportedParameter

_Text = Annotated[str, StringConstraints(max_length=200_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ThreadMessage(_Part):
    """A message of the thread. Only the last one is read; it must be the user's."""

    id: Annotated[str, StringConstraints(max_length=255)] = ""
    role: str
    content: Content = None

    @property
    def text(self) -> str:
        """The text of the message. Raises UnsupportedPart."""
        return text_of(self.content)


class RunContext(_Part):
    """Something that the model is to know about the page."""

    description: _Text
    value: _Text


class ForwardedProps(_Part):
    """The part of `forwardedProps` that this server reads: the model that answers."""

    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    effort: Annotated[str, StringConstraints(max_length=100)] | None = None


class RunInput(_Part):
    """A run: its last message is sent to the thread's session, which is created if needed."""

    thread_id: SessionIdField = Field(alias="threadId", description="The id of the session.")
    run_id: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(alias="runId")
    messages: list[ThreadMessage]
    context: Annotated[list[RunContext], Field(max_length=100)] = []
    forwarded_props: ForwardedProps | None = Field(None, alias="forwardedProps")
    resume: list[Json] | None = None

    @property
    def question(self) -> ThreadMessage:
        """The last message. Raises EmptyMessage if it is not the user's."""
        if not self.messages or self.messages[-1].role != "user":
            raise EmptyMessage("The last message must be the user's.")
        return self.messages[-1]

    @property
    def page(self) -> ContextPart | None:
        """The context as the model gets it, or None."""
        told = "\n\n".join(f"{one.description}: {one.value}" for one in self.context)
        return ContextPart(None, told[:200_000]) if told else None

    @property
    def choice(self) -> ModelChoice:
        """The model that `forwardedProps` names."""
        named = self.forwarded_props
        return ModelChoice() if named is None else ModelChoice(named.model or None, named.effort or None)

    def check_supported(self) -> None:
        """Raises UnsupportedParameter for a member whose effect the client would miss."""
        if self.resume:
            raise UnsupportedParameter("`resume`: runs of this server have no interrupts.")
