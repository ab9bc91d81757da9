"""What becomes of a task at its server: it goes on, or there is the response of the call that it was."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from backend.chat.models import ToolCallPart
from backend.chat.outcomes import Operation, Outcome, RemoteTask
from backend.chat.protocol.tool_responses import ToolResponse
from executor.agent.progress import progress_of
from executor.mcp.answers import answer_of
from executor.mcp.failure_responses import failure_response
from executor.mcp.failures import CALL_FAILURES, ServerBusy, ServerLost, ServerUnavailable
from executor.mcp.inputs import Inputs
from executor.mcp.server_entry import Server
from executor.mcp.tasks import ServerTasks, TaskState
from executor.tools.context import ToolContext
from executor.tools.remote_work import StillRunning
from executor.tools.tool import outcome_of


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
    return await answer_of(found, block_id, task.tool, context, tasks.server)


async def answer_to(
    tasks: ServerTasks, task: RemoteTask, state: TaskState, call: ToolCallPart, context: ToolContext, notes: list[str]
) -> ToolResponse | None:
    """Answers the requests for which a task waits. Returns a response if the task has ended, otherwise None.

    Waits for the user as long as the server's entry allows. Stops the task if one of its requests cannot be answered.
    Adds the questions that the user did not answer to `notes`.
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
    return await answer_of(found, f"{task.server}.{task.tool}", task.tool, context, tasks.server)


class ConnectionWithTasks(Protocol):
    """A connection to a server (`executor.mcp.connection.Connection`), as far as its tasks need it."""

    @property
    def server(self) -> Server: ...
    @property
    def tasks(self) -> ServerTasks: ...
    @property
    def can_tell_of_tasks(self) -> bool: ...


class McpWork:
    """An MCP server as a server of work (`executor.tools.remote_work.WorkServer`)."""

    def __init__(self, connection: ConnectionWithTasks) -> None:
        self._connection = connection

    @property
    def name(self) -> str:
        return self._connection.server.name

    @property
    def can_tell(self) -> bool:
        return self._connection.can_tell_of_tasks

    async def look(self, work: RemoteTask, operation: Operation, context: ToolContext) -> StillRunning | Outcome | None:
        found = await look_at(self._connection.tasks, work, context)
        if isinstance(found, ToolResponse):
            return outcome_of(with_notes(found, operation.work.notes))
        if found is None:
            return None
        progress = None if found.words is None else progress_of(0, None, found.words)
        return StillRunning(found.pause, progress, found if found.is_waiting else None)

    async def answer(
        self, work: RemoteTask, wants: TaskState, operation: Operation, context: ToolContext, notes: list[str]
    ) -> Outcome | None:
        found = await answer_to(self._connection.tasks, work, wants, operation.work.call, context, notes)
        return None if found is None else outcome_of(with_notes(found, notes))

    async def stop(self, work: RemoteTask) -> bool:
        try:
            await self._connection.tasks.cancel(work)
        except (ServerUnavailable, ServerBusy):
            return False
        return True
