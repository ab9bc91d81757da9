"""Rows as AI SDK `UIMessage`s: what the SDK itself assembles from our stream, so that a reload changes nothing.

All assistant and tool rows of one task are one message, whose id is the stream's `messageId`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, zip_longest
from types import MappingProxyType
from typing import TypeAlias

from backend.chat.chunks import Data, Finish
from backend.chat.messages import parts_json
from backend.chat.models import (
    Json,
    Message,
    NewMessage,
    Part,
    ReasoningPart,
    Role,
    SourcePart,
    Task,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from backend.chat.outcomes import Operation, Progress
from backend.chat.outputs import error_text, shown_output
from backend.chat.snapshot import progress_chunk, terminal_chunks
from backend.ids import TaskId

Entry: TypeAlias = Message | NewMessage


def ui_messages(
    rows: Sequence[Message],
    tasks: Mapping[TaskId, Task],
    silent: Mapping[int, Task] = MappingProxyType({}),
    operations: Mapping[TaskId, Operation] = MappingProxyType({}),
    *,
    answering_again: bool = False,
) -> list[Json]:
    """`rows` in order; every task of theirs whole and in `tasks`. A running task's own answer is not among them.

    A question shows one answer, the newest: that of the rows after it, else the one that left no rows (`silent`, by
    the question's sequence), else that of its own task; none while it is being answered again (the last question).
    What an operation says begins with its call (`operations`, by task).
    """
    shown: list[Json] = []
    turns = [(task_id, list(group)) for task_id, group in groupby(rows, key=lambda row: row.task_id)]
    for (task_id, group), (_, following) in zip_longest(turns, turns[1:], fillvalue=("", [])):
        said: list[Entry] = [row for row in group if row.role is not Role.USER]
        operation = operations.get(TaskId(task_id))
        if operation is not None:
            said = [*operation.said, *said]
        shown += [_user_message(row) for row in group if row.role is Role.USER and row.text]
        answered_again = _answers(following) or (answering_again and not following)
        if said or not answered_again:
            task = tasks[TaskId(task_id)]
            answer = _answer(task if said else silent.get(group[-1].sequence, task), said)
            if operation is not None and operation.progress is not None:
                answer["parts"].insert(2, _progress_part(operation, operation.progress))  # after the step and its call
            if answer["parts"]:
                shown.append(answer)
    return shown


def _answers(rows: Sequence[Message]) -> bool:
    return bool(rows) and rows[0].role is not Role.USER


def _user_message(row: Message) -> Json:
    return {"id": row.shown_id, "role": "user", "parts": [{"type": "text", "text": row.text}]}


def _answer(task: Task, said: Sequence[Entry]) -> Json:
    parts = list(_parts(said))
    message: dict[str, Json] = {"id": task.message_id, "role": "assistant", "parts": parts}
    if task.status.ended:
        for chunk in terminal_chunks(task, step_open=False):
            if isinstance(chunk, Data):
                parts.append({"type": chunk.type, "data": chunk.data})
            elif isinstance(chunk, Finish):
                message["metadata"] = chunk.metadata
    return message


def _progress_part(operation: Operation, progress: Progress) -> Json:
    chunk = progress_chunk(operation, progress)
    return {"type": chunk.type, "id": chunk.id, "data": chunk.data}


def _parts(said: Iterable[Entry]) -> Iterator[Json]:
    said = list(said)
    results = {p.tool_call_id: p for row in said for p in row.parts if isinstance(p, ToolResultPart)}
    for row in said:
        if row.role is Role.ASSISTANT:
            yield {"type": "step-start"}
            yield from _step(row.parts, results)


def _step(parts: Iterable[Part], results: Mapping[str, ToolResultPart]) -> Iterator[Json]:
    for part in parts:
        if isinstance(part, TextPart):
            yield {"type": "text", "text": part.text, "state": "done"}
        elif isinstance(part, ReasoningPart) and part.text:
            yield {"type": "reasoning", "text": part.text, "state": "done"}
        elif isinstance(part, SourcePart):
            yield from parts_json([part])  # kept in the SDK's own shape
        elif isinstance(part, ToolCallPart):
            yield _tool_part(part, results.get(part.tool_call_id))


def _tool_part(call: ToolCallPart, result: ToolResultPart | None) -> Json:
    part: dict[str, Json] = {
        "type": "dynamic-tool",
        "toolName": call.tool_name,
        "toolCallId": call.tool_call_id,
        "state": "input-available",
        "input": call.input,
        "providerExecuted": True,
    }
    if result is None:
        return part
    if result.is_error:
        return part | {"state": "output-error", "errorText": error_text(result)}
    return part | {"state": "output-available", "output": shown_output(result.output)}
