"""What a tool is, and the box that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from backend.chat.tool_responses import ToolResponse
from backend.ids import SessionId, TaskId, UserId
from backend.postgres import Database
from executor.llm.model import ToolSpec

Input = TypeVar("Input", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom a tool works: with the user's rights, not the server's."""

    session_id: SessionId
    task_id: TaskId
    tool_call_id: str
    user_id: UserId | None
    database: Database

    @property
    def owner(self) -> str:
        """Whose understanding is kept: the user's, else the session's."""
        return f"user:{self.user_id}" if self.user_id is not None else f"session:{self.session_id}"


class Tool(Generic[Input]):
    """One tool. `idempotent` says that a call may be run again when nobody knows whether it ran."""

    name: ClassVar[str]
    description: ClassVar[str]
    input_type: type[Input]
    idempotent: ClassVar[bool] = False

    async def run(self, call: Input, context: ToolContext) -> ToolResponse:
        """The response the model and the page get. An exception becomes an `error` response."""
        raise NotImplementedError

    @property
    def spec(self) -> ToolSpec:
        schema = self.input_type.model_json_schema()
        return ToolSpec(self.name, self.description, {k: v for k, v in schema.items() if k != "title"})


class Toolbox:
    """The tools a turn may call, by name."""

    def __init__(self, tools: Iterable[Tool[Any]]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    @property
    def specs(self) -> list[ToolSpec]:
        return [tool.spec for tool in self._tools.values()]

    def find(self, name: str) -> Tool[Any] | None:
        return self._tools.get(name)
