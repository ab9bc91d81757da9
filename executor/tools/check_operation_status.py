"""check_operation_status: tells how far a long-running operation is."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backend.chat.models import Caller
from backend.chat.outcomes import Operation
from backend.chat.protocol.tool_responses import ErrorResponse, OperationStatus, ToolResponse
from backend.chat.store.operations import get_operation_of
from backend.errors import OperationNotFound
from executor.tools.context import ToolContext
from executor.tools.tool import Tool


class CheckOperationStatusArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    operation_id: str | None = Field(None, max_length=100, description="As operation_started gave it")
    task_id: str | None = Field(None, max_length=100, description="Or the id of its task")

    @model_validator(mode="after")
    def _names_one(self) -> CheckOperationStatusArgs:
        if not (self.operation_id or self.task_id):
            raise ValueError("operation_id or task_id is needed")
        return self


class CheckOperationStatus(Tool[CheckOperationStatusArgs]):
    name: ClassVar[str] = "check_operation_status"
    description: ClassVar[str] = (
        "Look how far an operation is. Call it only when the user asks: its result comes by itself."
    )
    input_type = CheckOperationStatusArgs
    idempotent: ClassVar[bool] = True

    async def run(self, call: CheckOperationStatusArgs, context: ToolContext) -> ToolResponse:
        try:
            async with context.database.connection() as c:
                caller = Caller(context.user_id, "")
                operation = await get_operation_of(c, call.operation_id or call.task_id or "", caller)
        except OperationNotFound:
            return ErrorResponse(
                message="There is no such operation.", session_id=context.session_id, error="operation_not_found"
            )
        return OperationStatus(
            message=_words(operation),
            session_id=context.session_id,
            task_id=operation.task_id,
            operation_id=operation.id,
            status=_status(operation),
            tool_name=operation.work.tool_name,
        )


def _status(operation: Operation) -> str:
    """Returns the status of the work itself: after its outcome, the task only tells the user about it."""
    if operation.result is None:
        return operation.status.value
    return "failed" if operation.result.get("type") == "error" else "completed"


def _words(operation: Operation) -> str:
    if operation.result is not None:
        return str(operation.result.get("message") or "It has ended.")
    if operation.status.ended:
        return "It has ended."
    progress = operation.progress
    details = [f"{progress.percent:g} %"] if progress is not None and progress.percent is not None else []
    details += [progress.message] if progress is not None and progress.message else []
    return f"It is still going on: {', '.join(details)}." if details else "It is still going on."
