"""The interface of a language model: a prompt in, a stream of events out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from backend.chat.models import Json, NewMessage
from backend.files.kinds import Kind
from executor.llm.events import ModelEvent

ON_RETRY: ContextVar[Callable[[str], None]] = ContextVar("ON_RETRY", default=lambda code: None)
"""Called with the code of each failure after which the model call of this context is retried."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """The description of a tool that is sent to the model. `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of a model call. `messages` come from `history.to_prompt_messages`; providers rely on that."""

    system: str
    messages: Sequence[NewMessage]
    tools: Sequence[ToolSpec] = ()
    max_output_tokens: int = 8_192
    cache_key: str = ""
    """The same for all prompts of one conversation, and for no other. It does not reveal the conversation."""
    kept_call: Sequence[NewMessage] = ()
    """A call and its result that trimming keeps, for the continuation of an operation."""
    effort: str | None = None
    """A level of the model's effort, which `Extras.efforts` knows."""
    room: int = 0
    """Tokens that messages may have in this prompt."""
    wanted: int = 0
    """Tokens of all messages, of which some may be left out."""

    @property
    def fullness(self) -> float:
        """The part of the room that all messages take. More than 1 if some are left out."""
        return self.wanted / self.room if self.room else 0.0


class Model(Protocol):
    @property
    def name(self) -> str:
        """The provider's name for this model."""
        ...

    def room(self, prompt: Prompt) -> int | None:
        """Returns the tokens that messages may have beside the rest of the prompt, or None if that is unknown."""
        ...

    def refused_kinds(self) -> frozenset[Kind]:
        """Returns the kinds of files that the server has refused for this model."""
        ...

    def stream(self, prompt: Prompt) -> AsyncGenerator[ModelEvent, None]:
        """Runs one model call and yields its events; the last one is `Finished`.

        Iterate inside `contextlib.aclosing`, so that leaving early closes the connection. Raises ProviderError before
        the first event or later. Failures before the first event are retried where that can help, later ones are not.
        Reasoning without a text is no first event: it comes with what follows it (`unshown.py`).
        A stream that ends without a reason raises it with the code `provider_incomplete`.
        """
        ...
