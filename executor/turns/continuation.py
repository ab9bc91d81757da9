"""The continuation of an operation: its task runs as a turn, which needs the call that started the operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backend.chat.models import Message, ModelChoice, NewMessage, Part, Task, TaskKind, ToolResultPart
from backend.chat.outcomes import Operation
from backend.chat.store import operations, sessions
from backend.postgres import Connection
from executor.agent.agent import Row
from executor.llm.fitting import renamed
from executor.llm.history import to_prompt_messages
from executor.llm.model import Prompt

_MARK = "[the result of the operation]"


async def operation_of(c: Connection, task: Task) -> Operation | None:
    """Returns the operation of this task, or None if the task answers a message."""
    if task.kind is not TaskKind.OPERATION:
        return None
    return (await operations.operations_of_tasks(c, [task.id]))[task.id]


async def choice_of(c: Connection, task: Task) -> ModelChoice:
    """Returns the model for the task: a turn's own, or for a continuation the present choice of its session."""
    return task.request.choice if task.kind is TaskKind.TURN else await sessions.choice_of(c, task.session_id)


def outcome_of(operation: Operation) -> ToolResultPart:
    """Returns the result that the stream shows for the call. An operation without an outcome was cancelled."""
    work = operation.work
    return operation.outcome or ToolResultPart(work.tool_call_id, work.tool_name, operations.CANCELLED, is_error=True)


def with_call(rows: Sequence[Message], operation: Operation) -> Sequence[Row]:
    """Returns the history with the operation's call and its result.

    They can be missing: an edit or another answer may have replaced the turn that made the call, or it ended without a
    tool message. Then they are added before the operation's note.
    """
    if any(_is_result(row, part, operation) for row in rows for part in row.parts):
        return rows
    place = next((n for n, row in enumerate(rows) if row.task_id == operation.task_id), len(rows))
    return [*rows[:place], *operation.messages, *rows[place:]]


def about_operation(prompt: Prompt, operation: Operation, rows: Sequence[Row]) -> Prompt:
    """Returns the prompt of a continuation, in which trimming keeps the operation's call and its result.

    `rows` are those of which the prompt was made.
    """
    pair = to_prompt_messages(operation.messages)[1:]  # without the stand-in for the user
    id = _prompt_id(rows, operation)
    return replace(prompt, kept_call=pair if id is None else renamed(pair, id))


def _prompt_id(rows: Sequence[Row], operation: Operation) -> str | None:
    """Returns the id that the operation's call has in `to_prompt_messages(rows)`, or None if its result is not there.

    It differs from the call's own id if an earlier call has that.
    """
    marked = [
        NewMessage(row.role, tuple(_marked(part) if _is_result(row, part, operation) else part for part in row.parts))
        for row in rows
    ]
    results = (part for message in to_prompt_messages(marked) for part in message.parts)
    return next(
        (part.tool_call_id for part in results if isinstance(part, ToolResultPart) and part.output == _MARK), None
    )


def _is_result(row: Row, part: Part, operation: Operation) -> bool:
    """Returns True for the result of the operation's call. Another call of the session may have the same id."""
    if not isinstance(part, ToolResultPart) or part.tool_call_id != operation.work.tool_call_id:
        return False
    return row.task_id == operation.work.turn if isinstance(row, Message) else operation.outcome in (None, part)


def _marked(part: Part) -> Part:
    return replace(part, output=_MARK) if isinstance(part, ToolResultPart) else part
