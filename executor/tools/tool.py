"""What a tool is, and the box that holds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from backend.chat.models import Json
from backend.chat.outcomes import Operation
from backend.chat.tool_responses import ToolResponse
from backend.ids import SessionId, TaskId, UserId
from backend.postgres import Database
from executor.llm.model import ToolSpec
from executor.operations import Operations

Input = TypeVar("Input", bound=BaseModel)
MOST_TOOLS = 128
"""In one prompt: OpenAI refuses more."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom a tool works: with the user's rights, not the server's."""

    session_id: SessionId
    task_id: TaskId
    tool_call_id: str
    user_id: UserId | None
    database: Database
    operations: Operations

    @property
    def owner(self) -> str:
        """Whose understanding is kept: the user's, else the session's."""
        return f"user:{self.user_id}" if self.user_id is not None else f"session:{self.session_id}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A tool's answer when its work is somebody else's by now. `again`: the call had begun it before."""

    operation: Operation
    again: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """A tool's answer that is a tool response already, as it is stored."""

    output: Json


class Tool(ABC, Generic[Input]):
    """One tool. What it is called and how it may be run are class variables of ours, and found out for others'."""

    input_type: type[Input]

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def description(self) -> str: ...

    @property
    def idempotent(self) -> bool:
        """Whether a call may be run again when nobody knows whether it ran."""
        return False

    @property
    def long_running(self) -> bool:
        """Whether a call is to run as an operation, beside the turn."""
        return False

    @property
    def time_limit(self) -> float | None:
        """Seconds a call may take; None: TOOL_TIMEOUT."""
        return None

    @abstractmethod
    async def run(self, call: Input, context: ToolContext) -> ToolResponse | Accepted | Stored:
        """The response the model and the page get. An exception becomes an `error` response."""

    @property
    def spec(self) -> ToolSpec:
        schema = self.input_type.model_json_schema()
        return ToolSpec(self.name, self.description, {k: v for k, v in schema.items() if k != "title"})


class ToolSource(Protocol):
    """Tools that come and go while the process runs."""

    @property
    def tools(self) -> Mapping[str, Tool[Any]]:
        """Those that can be called now, by name."""
        ...

    def find(self, name: str) -> Tool[Any] | None:
        """Also one that cannot be called now: running it says so."""
        ...


class Toolbox:
    """The tools a turn may call, by name: ours, then those of the sources, which may change at any time."""

    def __init__(self, tools: Iterable[Tool[Any]], sources: Sequence[ToolSource] = ()) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._sources = sources

    @property
    def specs(self) -> list[ToolSpec]:
        """What the model is told of now, MOST_TOOLS at the most."""
        specs = dict(self._our_specs)
        for source in self._sources:
            for name, tool in source.tools.items():
                specs.setdefault(name, tool.spec)
        return list(specs.values())[:MOST_TOOLS]

    @cached_property
    def _our_specs(self) -> dict[str, ToolSpec]:
        """Made with the first prompt: the schemas of all tools take 8 ms."""
        return {name: tool.spec for name, tool in self._tools.items()}

    def find(self, name: str) -> Tool[Any] | None:
        there = (source.tools.get(name) for source in self._sources)
        known = (source.find(name) for source in self._sources)
        return self._tools.get(name) or next(filter(None, there), None) or next(filter(None, known), None)
