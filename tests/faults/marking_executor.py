"""`python -m tests.faults.marking_executor`: an executor with an additional tool, `mark`, whose effects can be counted.

The tool is not idempotent. It appends a line with the call's text to the file that MARKS names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from backend.chat.protocol.tool_responses import ToolResponse, UnderstandingUpdated
from backend.config import Settings
from executor import process as executor
from executor.tools import own_tools
from executor.tools.context import ToolContext
from executor.tools.tool import Tool

PROGRAM = ("tests.faults.marking_executor",)


class Mark(BaseModel):
    text: str


class MarkTool(Tool[Mark]):
    name: ClassVar[str] = "mark"
    description: ClassVar[str] = "Leaves a mark."
    input_type = Mark

    async def run(self, call: Mark, context: ToolContext) -> ToolResponse:
        with Path(os.environ["MARKS"]).open("a") as marks:
            marks.write(f"{call.text}\n")
        return UnderstandingUpdated(message="Marked.", updated_fields=[], current_understanding={})


def tools_and_mark(settings: Settings, *more: Any) -> list[Tool[Any]]:
    """Returns the usual tools and `mark`."""
    return [*own_tools(settings, *more), MarkTool()]


if __name__ == "__main__":
    executor.own_tools = tools_and_mark  # type: ignore[attr-defined]
    executor.run([])
