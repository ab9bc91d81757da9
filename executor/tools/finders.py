"""Tools with which a model finds and calls the tools that have no room in its prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import BlockList, ErrorResponse, NoResults, ToolResponse
from executor.tools.context import ToolContext
from executor.tools.tool import CALL_TOOL, SEARCH_TOOLS, Tool

MAX_FOUND = 8


class HiddenTools(Protocol):
    """The toolbox, as far as the finders need it."""

    @property
    def hidden(self) -> Mapping[str, Tool[Any]]:
        """The tools that can be called now and are not in the prompt."""
        ...


class SearchToolsArgs(BaseModel):
    query: str = Field(min_length=1, max_length=500, description="Words for what the tool must do.")


class SearchTools(Tool[SearchToolsArgs]):
    """Finds hidden tools by the words in their names and descriptions."""

    input_type = SearchToolsArgs
    name = SEARCH_TOOLS
    description = (
        "Finds further tools by words. They are not in your list because it is full. "
        f"Call what it finds with `{CALL_TOOL}`."
    )
    idempotent = True

    def __init__(self, toolbox: HiddenTools) -> None:
        self._toolbox = toolbox

    async def run(self, call: SearchToolsArgs, context: ToolContext) -> ToolResponse:
        words = set(_words(call.query))
        scored = [(_score(words, tool), name, tool) for name, tool in self._toolbox.hidden.items()]
        best = sorted((one for one in scored if one[0]), key=lambda one: (-one[0], one[1]))[:MAX_FOUND]
        if not best:
            return NoResults(message="No further tool matches these words.", session_id=context.session_id)
        found = [
            {"name": name, "description": tool.description, "parameters": tool.spec.parameters}
            for _, name, tool in best
        ]
        return BlockList(
            message=f"Call one with {CALL_TOOL}.", session_id=context.session_id, blocks=found, count=len(found)
        )


class CallToolArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(description=f"A name that {SEARCH_TOOLS} found.")
    arguments: dict[str, Any] = Field({}, description="The arguments, as that tool's parameters say.")


class CallTool(Tool[CallToolArgs]):
    """Stands in the prompt for hidden tools. The toolbox resolves a call of it to the tool that it names."""

    input_type = CallToolArgs
    name = CALL_TOOL
    description = f"Calls a tool that `{SEARCH_TOOLS}` found."

    async def run(self, call: CallToolArgs, context: ToolContext) -> ToolResponse:
        message = f"There is no tool named {call.name}. Find one with {SEARCH_TOOLS}."
        return ErrorResponse(message=message, session_id=context.session_id, error="unknown_tool")


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _score(words: set[str], tool: Tool[Any]) -> int:
    """Returns a tool's score. A word counts 3 in the name and 1 in the description; `issues` also finds `issue`."""
    name, about = tool.name.lower(), set(_words(tool.description))
    score = 0
    for word in words:
        stem = word.removesuffix("s")
        score += 3 if stem in name else 0
        score += 1 if word in about or any(len(stem) > 3 and stem in other for other in about) else 0
    return score
