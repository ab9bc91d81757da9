"""`python -m tests.faults.marking_executor`: an executor with one more tool, `mark`, whose effect can be counted.

The tool is not idempotent: it adds a line with the call's text to the file that MARKS names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from backend.chat.tool_responses import ToolResponse, UnderstandingUpdated
from backend.config import Settings
from executor import process as executor
from executor.tools import open_toolbox
from executor.tools.tool import Tool, Toolbox, ToolContext

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


class MarkingToolbox(Toolbox):
    """The usual tools, and the mark."""

    def __init__(self, settings: Settings, *usual: Any) -> None:
        self._usual = open_toolbox(settings, *usual)
        super().__init__([MarkTool()])

    def find(self, name: str) -> Tool[Any] | None:
        return super().find(name) or self._usual.find(name)


if __name__ == "__main__":
    executor.open_toolbox = MarkingToolbox  # type: ignore[attr-defined]
    executor.run([])
