"""What becomes of a task at its server: it goes on, or there is the response of the call that it was."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from backend.chat.models import ToolCallPart
from backend.chat.outcomes import RemoteTask
from backend.chat.protocol.tool_responses import ToolResponse
from executor.mcp.failure_responses import failure_response, masked
from executor.mcp.failures import CALL_FAILURES, ServerBusy, ServerLost, ServerUnavailable
from executor.mcp.inputs import Inputs
from executor.mcp.outputs import response_of
from executor.mcp.tasks import ServerTasks, TaskState
from executor.tools.context import ToolContext


def with_notes(response: ToolResponse, notes: Iterable[str]) -> ToolResponse:
    """Returns the response, in which the model reads of questions that the user has not answered."""
    return response.model_copy(update={"message": " ".join([response.message, *notes])})


async def look_at(tasks: ServerTasks, task: RemoteTask, context: ToolContext) -> TaskState | ToolResponse | None:
    """Returns the state of a task, or the response for one that has ended. None if the server cannot be asked now."""
    block_id = f"{task.server}.{task.tool}"
    try:
        found = await tasks.look(task)
    except (ServerUnavailable, ServerBusy, ServerLost):
        return None
    except CALL_FAILURES as failure:
        return failure_response(failure, tasks.server, block_id, context, repeatable=False)
    if isinstance(found, TaskState):
        return found
    return masked(response_of(found, block_id, task.tool, context.session_id), tasks.server)


async def answer_to(
    tasks: ServerTasks, task: RemoteTask, state: TaskState, call: ToolCallPart, context: ToolContext, notes: list[str]
) -> ToolResponse | None:
    """Answers what a task waits for, as long as the user takes. Returns a response if the task has ended, else None.

    A task that asks for what it does not get is stopped. Questions that the user has not answered are added to `notes`.
    """
    inputs = Inputs(tasks.server, context, call, tasks.server.wait, notes)
    try:
        found = await tasks.answer(task, state, inputs)
    except (ServerUnavailable, ServerBusy, ServerLost):
        return None
    except CALL_FAILURES as failure:
        with suppress(ServerUnavailable, ServerBusy):
            await tasks.cancel(task)
        return failure_response(failure, tasks.server, task.tool, context, repeatable=False)
    if found is None:
        return None
    return masked(response_of(found, f"{task.server}.{task.tool}", task.tool, context.session_id), tasks.server)
