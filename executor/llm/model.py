"""A language model as this house sees it: a prompt in, a stream of events out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from backend.chat.models import Json, NewMessage
from backend.config import Settings
from backend.errors import ConfigError
from executor.llm.events import ModelEvent


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model is told of it. `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One model call. `messages` are what `history.to_prompt_messages` made, so providers need not check them again."""

    system: str
    messages: Sequence[NewMessage]
    tools: Sequence[ToolSpec] = ()
    max_output_tokens: int = 8_192


class Model(Protocol):
    @property
    def name(self) -> str:
        """What the provider calls this model."""
        ...

    def stream(self, prompt: Prompt) -> AsyncGenerator[ModelEvent, None]:
        """One model call; its last event is `Finished`. Use `contextlib.aclosing`: leaving early closes the connection.

        Raises ProviderError, before the first event or after any. What can be tried again has been, until an event
        was passed on; nothing is tried again after that. A stream that ends without a reason is an error too, with
        the code `provider_incomplete`.
        """
        ...


@asynccontextmanager
async def open_model(settings: Settings, *, name: str | None = None) -> AsyncIterator[Model]:
    """The model that the settings choose; `name` stands in for CHAT_MODEL. Raises ConfigError naming what is missing.

    An SDK is imported here, on first use: each takes a second or so and many megabytes.
    """
    chosen = name or settings.chat_model
    match settings.provider:
        case "scripted":
            from executor.llm.scripted import ScriptedModel

            yield ScriptedModel()
        case "openai":
            from executor.llm.openai import open_openai

            async with open_openai(settings, chosen) as model:
                yield model
        case "anthropic":
            from executor.llm.anthropic import open_anthropic

            async with open_anthropic(settings, chosen) as model:
                yield model
        case "claude_agent":
            raise ConfigError("CHAT_PROVIDER: claude_agent comes with a later release; use anthropic for now")
