"""`outside_work`: a tool whose work another service does. The test plays that service.

`python -m tests.fakes.outside_work` is an executor with this tool and the usual ones.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel

from backend.chat.outcomes import ResultUse, ToolWork
from backend.config import Settings
from executor import process as executor
from executor.tools import open_toolbox, own_tools
from executor.tools.context import ToolContext
from executor.tools.tool import OperationAccepted, StoredResponse, Tool, Toolbox

PROGRAM = ("tests.fakes.outside_work",)


class Work(BaseModel):
    label: str = ""
    use: ResultUse = ResultUse.TOOL_OUTPUT


class OutsideWork(Tool[Work]):
    name: ClassVar[str] = "outside_work"
    description: ClassVar[str] = "Has something done outside."
    input_type = Work
    idempotent: ClassVar[bool] = True

    async def run(self, call: Work, context: ToolContext) -> OperationAccepted | StoredResponse:
        work = ToolWork(
            turn=context.task_id,
            tool_name=self.name,
            tool_call_id=context.tool_call_id,
            input=call.model_dump(mode="json"),
            use=call.use,
        )
        known = await context.operations.find(context.tool_call_id)
        operation = known or await context.operations.register(work)
        if operation.result is not None:
            return StoredResponse(operation.result)
        await context.operations.mark_opened(operation)
        return OperationAccepted(operation, already_started=known is not None)


class OutsideToolbox(Toolbox):
    """The usual tools and `outside_work`."""

    def __init__(self, settings: Settings, *usual: Any) -> None:
        self._usual = open_toolbox(settings, *usual)
        super().__init__([OutsideWork()])

    def find(self, name: str) -> Tool[Any] | None:
        return super().find(name) or self._usual.find(name)


if __name__ == "__main__":
    executor.own_tools = lambda *given: [*own_tools(*given), OutsideWork()]  # type: ignore[attr-defined]
    executor.run([])
