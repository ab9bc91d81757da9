"""Tools that the user's page carries out. The page names them in its request; a call waits until a page answers it."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from typing import Any

from pydantic import RootModel

from backend.chat.models import Json
from backend.chat.outcomes import ToolWork
from backend.chat.questions import Question, QuestionKind
from executor.llm.clean_text import clean
from executor.llm.model import ToolSpec
from executor.mcp.schemas import InputSchema, input_schema
from executor.mcp.unions import UnusableSchema
from executor.tools.context import ToolContext
from executor.tools.tool import MOST_TOOLS, OperationAccepted, StoredResponse, Tool, Toolbox

logger = logging.getLogger(__name__)


class Arguments(RootModel[dict[str, Any]]):
    """Any JSON object. The page checks it."""


class PageTool(Tool[Arguments]):
    """A tool of the page, as the page describes it. Its call is a question that the page answers."""

    input_type = Arguments
    idempotent = True  # a repeated call finds the one that waits

    def __init__(self, name: str, description: str, schema: InputSchema) -> None:
        self._spec = ToolSpec(name, clean(description), schema.parameters)

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def description(self) -> str:
        return self._spec.description

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    async def run(self, call: Arguments, context: ToolContext) -> OperationAccepted | StoredResponse:
        asks = Question(QuestionKind.PAGE_TOOL, self.name)
        asked = await context.operations.ask(
            ToolWork(context.task_id, self.name, context.tool_call_id, call.root, asks=asks)
        )
        if asked.operation.result is not None:
            return StoredResponse(asked.operation.result)
        return OperationAccepted(asked.operation, asked.already_started)


class TurnToolbox(Toolbox):
    """The tools of one turn: the usual tools except the `withheld` ones, and the tools that its page names.

    A name that the server uses in this turn is the server's. A tool that is withheld is unknown.
    """

    def __init__(self, usual: Toolbox, named: Sequence[Json], withheld: Container[str]) -> None:
        super().__init__(())
        self._usual = usual
        self._withheld = withheld
        self._of_page = {tool.name: tool for one in named if (tool := _tool_of(one)) is not None}

    @property
    def specs(self) -> list[ToolSpec]:
        usual = [spec for spec in self._usual.specs if spec.name not in self._withheld]
        known = {spec.name for spec in usual}
        return [*usual, *(tool.spec for name, tool in self._of_page.items() if name not in known)][:MOST_TOOLS]

    @property
    def hidden(self) -> Mapping[str, Tool[Any]]:
        return self._usual.hidden

    @property
    def instructions(self) -> list[tuple[str, str]]:
        return self._usual.instructions

    def find(self, name: str) -> Tool[Any] | None:
        return (None if name in self._withheld else self._usual.find(name)) or self._of_page.get(name)


def _tool_of(named: Json) -> PageTool | None:
    try:
        return PageTool(named["name"], named.get("description", ""), input_schema(named.get("parameters")))
    except UnusableSchema as why:
        logger.warning("tool of a page is left out", extra={"tool": named["name"], "error": str(why)})
        return None
